import { ggufInvalid } from "./byte-cursor.js";
import type { GgufMetadata } from "./metadata.js";

const MAX_CHAT_TEMPLATES = 64;

/** The `tokenizer.*` metadata of a GGUF file; absent keys are undefined. */
export interface GgufVocabulary {
  /** `tokenizer.ggml.model`: "llama" (SentencePiece BPE) or "gpt2" (byte-level BPE). */
  model: string;
  /** `tokenizer.ggml.pre`; only of "gpt2". */
  preTokenizer?: string;
  tokens: readonly string[];
  /** `tokenizer.ggml.scores`, one a token; "llama" needs them. */
  scores?: ArrayLike<number>;
  /** `tokenizer.ggml.token_type`, one a token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
  tokenTypes?: ArrayLike<number>;
  /** `tokenizer.ggml.merges`, each "left right"; "gpt2" needs them. */
  merges?: readonly string[];
  bosTokenId?: number;
  eosTokenId?: number;
  /** `tokenizer.ggml.eot_token_id`: the end of a turn. */
  eotTokenId?: number;
  unknownTokenId?: number;
  paddingTokenId?: number;
  addBosToken?: boolean;
  addEosToken?: boolean;
  addSpacePrefix?: boolean;
  removeExtraWhitespaces?: boolean;
  /** `tokenizer.chat_template`, or a list where there are others besides, which have names. */
  chatTemplate?: string | readonly { name: string; template: string }[];
}

/** Undefined if the file holds no tokenizer. @throws GGUF_INVALID */
export function readVocabulary(metadata: GgufMetadata): GgufVocabulary | undefined {
  const model = metadata.string("tokenizer.ggml.model");
  const tokens = metadata.strings("tokenizer.ggml.tokens");
  if (model === undefined || model === "none" || tokens === undefined) return undefined;
  const id = (name: string) => tokenId(metadata, `tokenizer.ggml.${name}_token_id`, tokens.length);
  const flag = (name: string) => metadata.boolean(`tokenizer.ggml.${name}`);
  return {
    model,
    preTokenizer: metadata.string("tokenizer.ggml.pre"),
    tokens,
    scores: perToken(metadata, "tokenizer.ggml.scores", tokens.length),
    tokenTypes: perToken(metadata, "tokenizer.ggml.token_type", tokens.length),
    merges: metadata.strings("tokenizer.ggml.merges"),
    bosTokenId: id("bos"),
    eosTokenId: id("eos"),
    eotTokenId: id("eot"),
    unknownTokenId: id("unknown"),
    paddingTokenId: id("padding"),
    addBosToken: flag("add_bos_token"),
    addEosToken: flag("add_eos_token"),
    addSpacePrefix: flag("add_space_prefix"),
    removeExtraWhitespaces: flag("remove_extra_whitespaces"),
    chatTemplate: readChatTemplate(metadata),
  };
}

function readChatTemplate(metadata: GgufMetadata): GgufVocabulary["chatTemplate"] {
  const main = metadata.string("tokenizer.chat_template");
  const others = [...new Set(metadata.strings("tokenizer.chat_templates"))].slice(0, MAX_CHAT_TEMPLATES);
  const named = others.flatMap((name) => {
    const template = metadata.string(`tokenizer.chat_template.${name}`);
    return template === undefined || name === "default" ? [] : [{ name, template }];
  });
  return main === undefined || named.length === 0 ? main : [{ name: "default", template: main }, ...named];
}

/** An id outside the vocabulary means that there is none, as 4294967295 does in some files. */
function tokenId(metadata: GgufMetadata, key: string, tokens: number): number | undefined {
  const id = metadata.count(key);
  return id === undefined || id >= tokens ? undefined : id;
}

function perToken(metadata: GgufMetadata, key: string, tokens: number): ArrayLike<number> | undefined {
  const values = metadata.numbers(key);
  if (values === undefined) return undefined;
  if (values.length === tokens) return Float64Array.from(values as ArrayLike<number>, Number);
  throw ggufInvalid(metadata.file, `has ${values.length} elements in "${key}" for ${tokens} tokens`);
}
