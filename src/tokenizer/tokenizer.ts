import type { ChatTemplate, RenderOptions } from "../chat/template.js";
import { LayerstreamError } from "../errors.js";
import { createCodec } from "./create-codec.js";
import { IncrementalDecoder } from "./incremental-decoder.js";
import { cleanUpSpaces, SpaceCleaner } from "./space-cleaner.js";
import type { TextCodec } from "./text-codec.js";
import {
  chatTemplateOf,
  readTokenizerSettings,
  readVocabularies,
  type TokenizerSettings,
  type VocabularyFile,
} from "./tokenizer-files.js";

export interface DecodeOptions {
  /** Leave out tokens such as the end of sequence. Default false. */
  skipSpecialTokens?: boolean;
}

/** What a `Tokenizer` is made of. */
export interface TokenizerParts {
  codec: TextCodec;
  /** Path of the vocabulary, for errors. */
  file: string;
  chatTemplate: ChatTemplate | undefined;
  eosTokenIds: readonly number[];
}

/** Text to token ids and back. */
export class Tokenizer {
  /**
   * Tokens that end a generation, by generation_config.json (or config.json), by tokenizer_config.json, and by the
   * original prompt format where that is in use.
   */
  readonly eosTokenIds: readonly number[];
  private readonly codec: TextCodec;
  private readonly chatTemplate: ChatTemplate | undefined;
  private readonly file: string;

  constructor(parts: TokenizerParts) {
    this.codec = parts.codec;
    this.file = parts.file;
    this.chatTemplate = parts.chatTemplate;
    this.eosTokenIds = parts.eosTokenIds;
  }

  get hasChatTemplate(): boolean {
    return this.chatTemplate !== undefined;
  }

  /**
   * @param options.addSpecialTokens what the tokenizer puts around a prompt, such as the beginning of sequence. Default
   * true; use false for the text of a chat template, which contains them.
   */
  encode(text: string, options: { addSpecialTokens?: boolean } = {}): number[] {
    if (typeof text !== "string") {
      throw new LayerstreamError("INVALID_ARGUMENT", `The text to encode is ${typeof text}, not a string.`);
    }
    try {
      return this.codec.encode(text, options.addSpecialTokens ?? true);
    } catch (cause) {
      throw unusable(this.file, "failed to encode a text", cause);
    }
  }

  /** Ids that are not in the vocabulary (models may have more rows than tokens) decode to nothing. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    const text = this.codec.decode(ids.filter((id) => this.hasText(id, options)));
    return this.codec.cleansUpSpaces ? cleanUpSpaces(text) : text;
  }

  /** Incremental decoding: never half a character, and the pieces and `flush` concatenate to `decode` of all ids. */
  createDecoder(options: DecodeOptions = {}): { push(id: number): string; flush(): string } {
    const decoder = new IncrementalDecoder((ids) => this.codec.decode(ids));
    const cleaner = this.codec.cleansUpSpaces ? new SpaceCleaner() : undefined;
    return {
      push: (id) => {
        const piece = this.hasText(id, options) ? decoder.push(id) : "";
        return cleaner?.push(piece) ?? piece;
      },
      flush: () => {
        const rest = decoder.flush();
        return cleaner === undefined ? rest : cleaner.push(rest) + cleaner.flush();
      },
    };
  }

  /**
   * Text of the conversation, by default with the opening of the assistant's turn at its end.
   * @throws CHAT_TEMPLATE_INVALID if there is no template or it refuses the conversation.
   */
  applyChatTemplate(messages: readonly object[], options: RenderOptions = {}): string {
    if (this.chatTemplate === undefined) {
      throw new LayerstreamError("CHAT_TEMPLATE_INVALID", `${this.file} comes without a chat template.`, {
        file: this.file,
        remedy: "Give the prompt as text, or use an instruction-tuned checkpoint.",
      });
    }
    return this.chatTemplate.render(messages, options);
  }

  private hasText(id: number, options: DecodeOptions): boolean {
    return this.codec.tokenOf(id) !== undefined && !(options.skipSpecialTokens && this.codec.specialIds.has(id));
  }
}

function unusable(file: string, what: string, cause: unknown): LayerstreamError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new LayerstreamError("TOKENIZER_INVALID", `The tokenizer of ${file} ${what}: ${reason}.`, {
    file,
    remedy: "Download the file again; token ids work without a tokenizer.",
    cause,
  });
}

/**
 * @param directory named in errors of the chat template.
 * @throws TOKENIZER_INVALID if the vocabulary cannot be used.
 */
export function createTokenizer(vocabulary: VocabularyFile, settings: TokenizerSettings, directory: string): Tokenizer {
  let codec: TextCodec;
  try {
    codec = createCodec(vocabulary, settings);
  } catch (cause) {
    throw unusable(vocabulary.file, "cannot be used", cause);
  }
  const ends = [settings.specialTokens.eos_token, ...(settings.originalFormat?.turnEnds ?? [])];
  const endIds = ends.flatMap((token) => (token === undefined ? [] : (codec.idOf(token) ?? [])));
  return new Tokenizer({
    codec,
    file: vocabulary.file,
    chatTemplate: chatTemplateOf(settings, directory),
    eosTokenIds: [...new Set([...settings.eosTokenIds, ...endIds])],
  });
}

export const AutoTokenizer = {
  /**
   * The tokenizer in the directory of a checkpoint or layer store: tokenizer.json, or where that is missing or cannot
   * be used tokenizer.model (SentencePiece), or qwen.tiktoken.
   * @throws TOKENIZER_MISSING if there is none; TOKENIZER_INVALID if it is damaged or of a kind that is not
   * supported; CONFIG_INVALID, CHAT_TEMPLATE_INVALID for the files beside it; UNSAFE_PATH, IO_ERROR
   */
  async fromPretrained(directory: string): Promise<Tokenizer> {
    const settings = await readTokenizerSettings(directory);
    let failure: unknown;
    for await (const vocabulary of readVocabularies(directory)) {
      try {
        return createTokenizer(vocabulary, settings, directory);
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  },
};
