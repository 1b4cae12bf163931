import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import type { ChatTemplate, RenderOptions } from "../chat/template.js";
import { LayerstreamError } from "../errors.js";
import { IncrementalDecoder } from "./incremental-decoder.js";
import { readTokenizerFiles, type TokenizerFiles } from "./tokenizer-files.js";

/** What is used of the library. Its own declarations do not resolve under NodeNext: they import without extensions. */
interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, { id: number; special: boolean }>;
}

export interface DecodeOptions {
  /** Leave out tokens such as the end of sequence. Default false. */
  skipSpecialTokens?: boolean;
}

/** Text to token ids and back. */
export class Tokenizer {
  /** Tokens that end a generation, by generation_config.json (or config.json) and by tokenizer_config.json. */
  readonly eosTokenIds: readonly number[];
  private readonly library: LibraryTokenizer;
  private readonly specialIds: ReadonlySet<number>;
  private readonly chatTemplate: ChatTemplate | undefined;
  private readonly file: string;

  /** @throws TOKENIZER_INVALID if the library cannot build a tokenizer from the files. */
  constructor(files: TokenizerFiles) {
    this.file = files.file;
    this.chatTemplate = files.chatTemplate;
    try {
      this.library = new HuggingFaceTokenizer(files.tokenizer, files.config);
    } catch (cause) {
      throw this.invalid("cannot be used", cause);
    }
    const named = Object.values(files.specialTokens).map((token) => this.library.token_to_id(token));
    const added = [...this.library.get_added_tokens_decoder().values()].filter((token) => token.special);
    this.specialIds = new Set([...named, ...added.map((token) => token.id)].filter((id) => id !== undefined));
    const { eos_token: eosToken } = files.specialTokens;
    const eos = eosToken === undefined ? undefined : this.library.token_to_id(eosToken);
    this.eosTokenIds = [...new Set(eos === undefined ? files.eosTokenIds : [...files.eosTokenIds, eos])];
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
    if (text === "" && options.addSpecialTokens === false) return [];
    try {
      const { ids } = this.library.encode(text, { add_special_tokens: options.addSpecialTokens ?? true });
      // Characters that neither the vocabulary nor an unknown token covers have no id.
      return ids.filter((id) => id !== undefined);
    } catch (cause) {
      throw this.invalid("failed to encode a text", cause);
    }
  }

  /** Ids that are not in the vocabulary (models may have more rows than tokens) decode to nothing. */
  decode(ids: readonly number[], options: DecodeOptions = {}): string {
    return this.decodeKnown(ids.filter((id) => this.hasText(id, options)));
  }

  /** Incremental decoding: never half a character, and the pieces and `flush` concatenate to `decode` of all ids. */
  createDecoder(options: DecodeOptions = {}): { push(id: number): string; flush(): string } {
    const decoder = new IncrementalDecoder((ids) => this.decodeKnown(ids));
    return {
      push: (id) => (this.hasText(id, options) ? decoder.push(id) : ""),
      flush: () => decoder.flush(),
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
    return this.library.id_to_token(id) !== undefined && !(options.skipSpecialTokens && this.specialIds.has(id));
  }

  /** The library refuses an empty list, and by default removes spaces before punctuation. */
  private decodeKnown(ids: readonly number[]): string {
    return ids.length === 0 ? "" : this.library.decode([...ids], { clean_up_tokenization_spaces: false });
  }

  private invalid(what: string, cause: unknown): LayerstreamError {
    const reason = cause instanceof Error ? cause.message : String(cause);
    return new LayerstreamError("TOKENIZER_INVALID", `The tokenizer of ${this.file} ${what}: ${reason}.`, {
      file: this.file,
      remedy: "Download the file again; token ids work without a tokenizer.",
      cause,
    });
  }
}

export const AutoTokenizer = {
  /**
   * The tokenizer in the directory of a checkpoint or layer store.
   * @throws TOKENIZER_MISSING without tokenizer.json; TOKENIZER_INVALID if it is damaged or of a kind that is not
   * supported; CONFIG_INVALID, CHAT_TEMPLATE_INVALID for the files beside it; UNSAFE_PATH, IO_ERROR
   */
  async fromPretrained(directory: string): Promise<Tokenizer> {
    return new Tokenizer(await readTokenizerFiles(directory));
  },
};
