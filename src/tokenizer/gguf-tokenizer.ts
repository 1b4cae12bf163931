import type { GgufVocabulary } from "../checkpoint/gguf/vocabulary.js";
import { LayerstreamError } from "../errors.js";
import { GGUF_PRE_TOKENIZERS, type GgufPreTokenizer } from "./gguf-pre-tokenizers.js";
import { PieceType } from "./sentencepiece/model-proto.js";
import { writeModelProto } from "./sentencepiece/model-writer.js";

/** Metadata seldom name the ends of a turn; each of these that a vocabulary has ends a generation. */
const TURN_ENDS: readonly string[] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"];

/**
 * The files that a Hugging Face checkpoint with this vocabulary would have, by name: tokenizer.model or tokenizer.json,
 * tokenizer_config.json and generation_config.json. `AutoTokenizer` then reads them like any other checkpoint's.
 *
 * @param file of the GGUF, for errors.
 * @throws TOKENIZER_INVALID for kinds, pre-tokenizers and lengths that cannot be used.
 */
export function ggufTokenizerFiles(vocabulary: GgufVocabulary, file: string): Map<string, Uint8Array> {
  const { tokens, scores, tokenTypes, model } = vocabulary;
  for (const [name, list] of Object.entries({ scores, token_type: tokenTypes })) {
    if (list !== undefined && list.length !== tokens.length) {
      throw invalid(file, `tokenizer.ggml.${name} has ${list.length} entries for ${tokens.length} tokens`);
    }
  }
  const files = new Map<string, Uint8Array>();
  const ends = endTokenIds(vocabulary);
  files.set("generation_config.json", json({ bos_token_id: vocabulary.bosTokenId, eos_token_id: ends }));
  if (model === "llama") {
    files.set("tokenizer.model", sentencePieceModel(vocabulary, file));
    files.set("tokenizer_config.json", json(tokenizerConfig(vocabulary, file, true)));
  } else if (model === "gpt2") {
    const name = vocabulary.preTokenizer ?? "default";
    const preTokenizer = GGUF_PRE_TOKENIZERS.get(name);
    if (preTokenizer === undefined) {
      throw invalid(file, `the pre-tokenizer ${JSON.stringify(name.slice(0, 60))} is not supported`);
    }
    files.set("tokenizer.json", json(byteLevelTokenizer(vocabulary, preTokenizer, file)));
    files.set("tokenizer_config.json", json(tokenizerConfig(vocabulary, file, preTokenizer.addBosToken ?? false)));
  } else {
    throw invalid(
      file,
      `tokenizer.ggml.model is ${JSON.stringify(model.slice(0, 60))}; "llama" and "gpt2" are supported`,
    );
  }
  return files;
}

function typeOf(vocabulary: GgufVocabulary, id: number): number {
  const type = vocabulary.tokenTypes?.[id] ?? PieceType.normal;
  return type >= PieceType.normal && type <= PieceType.byte ? type : PieceType.normal;
}

function sentencePieceModel(vocabulary: GgufVocabulary, file: string): Uint8Array {
  const { tokens, scores } = vocabulary;
  if (scores === undefined) throw invalid(file, "tokenizer.ggml.scores is missing");
  const types = Uint8Array.from(tokens, (_, id) => typeOf(vocabulary, id));
  const bytes = new Set(tokens.filter((_, id) => types[id] === PieceType.byte));
  return writeModelProto({
    kind: "bpe",
    // Rows that pad an embedding have empty names in some files; sentencepiece has no empty pieces.
    pieces: tokens.map((token, id) => (token === "" ? `[EMPTY_${id}]` : token)),
    scores: Float32Array.from(tokens, (_, id) => scores[id] as number),
    types,
    byteFallback: bytes.size === 256,
    treatWhitespaceAsSuffix: false,
    unknownSurface: " \u2047 ",
    bosPiece: nameOf(vocabulary, vocabulary.bosTokenId, "bos", file) ?? "<s>",
    eosPiece: nameOf(vocabulary, vocabulary.eosTokenId, "eos", file) ?? "</s>",
    normalizer: {
      charsMap: new Uint8Array(0),
      addDummyPrefix: vocabulary.addSpacePrefix ?? true,
      removeExtraWhitespaces: vocabulary.removeExtraWhitespaces ?? false,
      escapeWhitespaces: true,
    },
  });
}

function byteLevelTokenizer(vocabulary: GgufVocabulary, preTokenizer: GgufPreTokenizer, file: string): object {
  const { tokens, merges } = vocabulary;
  if (merges === undefined) throw invalid(file, "tokenizer.ggml.merges is missing");
  const added = [...tokens.keys()].filter((id) => {
    const type = typeOf(vocabulary, id);
    return (type === PieceType.control || type === PieceType.userDefined) && tokens[id] !== "";
  });
  const splits = preTokenizer.patterns.map((pattern) => ({
    type: "Split",
    pattern: { Regex: pattern },
    behavior: "Isolated",
    invert: false,
  }));
  const useRegex = splits.length === 0;
  const around = (type: "bos" | "eos", wanted: boolean, id: number | undefined): object[] => {
    const name = wanted ? nameOf(vocabulary, id, type, file) : undefined;
    return name === undefined ? [] : [{ SpecialToken: { id: name, type_id: 0 } }];
  };
  return {
    version: "1.0",
    added_tokens: added.map((id) => ({
      id,
      content: tokens[id],
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: typeOf(vocabulary, id) === PieceType.control,
    })),
    normalizer: preTokenizer.normalizeNfc ? { type: "NFC" } : null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...splits,
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: useRegex },
      ],
    },
    post_processor: {
      type: "TemplateProcessing",
      single: [
        ...around("bos", vocabulary.addBosToken ?? preTokenizer.addBosToken ?? false, vocabulary.bosTokenId),
        { Sequence: { id: "A", type_id: 0 } },
        ...around("eos", vocabulary.addEosToken ?? false, vocabulary.eosTokenId),
      ],
    },
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
    model: {
      type: "BPE",
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      byte_fallback: false,
      ignore_merges: preTokenizer.ignoreMerges ?? false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token === "" ? `[EMPTY_${id}]` : token, id])),
      merges,
    },
  };
}

function tokenizerConfig(vocabulary: GgufVocabulary, file: string, addBosToken: boolean): object {
  return {
    add_bos_token: vocabulary.addBosToken ?? addBosToken,
    add_eos_token: vocabulary.addEosToken ?? false,
    bos_token: nameOf(vocabulary, vocabulary.bosTokenId, "bos", file),
    eos_token: nameOf(vocabulary, vocabulary.eosTokenId, "eos", file),
    unk_token: nameOf(vocabulary, vocabulary.unknownTokenId, "unknown", file),
    pad_token: nameOf(vocabulary, vocabulary.paddingTokenId, "padding", file),
    clean_up_tokenization_spaces: false,
    chat_template: vocabulary.chatTemplate,
  };
}

function endTokenIds(vocabulary: GgufVocabulary): number[] {
  const { tokens, eosTokenId, eotTokenId } = vocabulary;
  const ends = [...tokens.keys()].filter(
    (id) => TURN_ENDS.includes(tokens[id] as string) && typeOf(vocabulary, id) === PieceType.control,
  );
  return [...new Set([eosTokenId, eotTokenId, ...ends])].filter(
    (id) => id !== undefined && id < tokens.length,
  ) as number[];
}

function nameOf(vocabulary: GgufVocabulary, id: number | undefined, what: string, file: string): string | undefined {
  if (id === undefined) return undefined;
  const name = vocabulary.tokens[id];
  if (name === undefined) {
    throw invalid(file, `its ${what} token is ${id}, but it has ${vocabulary.tokens.length} tokens`);
  }
  return name;
}

function json(value: object): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

function invalid(file: string, what: string): LayerstreamError {
  return new LayerstreamError("TOKENIZER_INVALID", `${file}: ${what}.`, {
    file,
    remedy: "Use a newer conversion of the model, or the original checkpoint.",
  });
}
