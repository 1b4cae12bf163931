/** What a GGUF file says about its tokenizer and about generation. `src/tokenizer` builds a tokenizer from it. */
import { ggufInvalid } from "./byte-cursor.js";
import type { GgufMetadata } from "./metadata.js";

/** Values of `tokenTypes`. */
export const TOKEN_NORMAL = 1;
export const TOKEN_UNKNOWN = 2;
export const TOKEN_CONTROL = 3;
export const TOKEN_USER_DEFINED = 4;
export const TOKEN_UNUSED = 5;
export const TOKEN_BYTE = 6;

export interface GgufTokenizer {
  /** Of the GGUF file, for errors. */
  file: string;
  /** "llama" (sentencepiece BPE), "gpt2" (byte-level BPE), or another. */
  model: string;
  /** Names how "gpt2" splits text: "llama-bpe", "qwen2", ... */
  pre: string | undefined;
  /** By id. */
  tokens: readonly string[];
  /** As many as tokens, or none. */
  scores: readonly number[];
  /** One of the TOKEN_ numbers for each token, or none. */
  tokenTypes: readonly number[];
  /** Each is two tokens with a space between them, in order of rank. */
  merges: readonly string[];
  bosTokenId: number | undefined;
  eosTokenId: number | undefined;
  unknownTokenId: number | undefined;
  paddingTokenId: number | undefined;
  /** All that end a generation: end of sequence, of turn, of message. */
  endTokenIds: readonly number[];
  addBosToken: boolean | undefined;
  addEosToken: boolean | undefined;
  addSpacePrefix: boolean | undefined;
  removeExtraWhitespaces: boolean | undefined;
  /** Of sentencepiece's normalizer. */
  precompiledCharsmap: Uint8Array | undefined;
  /** By name; the main one is "default". */
  chatTemplates: ReadonlyMap<string, string>;
}

const MAX_CHAT_TEMPLATES = 64;
/** Tokens with which chat models end a turn where the file does not say so. */
const END_OF_TURN: readonly string[] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"];

/** Undefined if the file holds no tokenizer. @throws GGUF_INVALID */
export function readTokenizerParts(metadata: GgufMetadata): GgufTokenizer | undefined {
  const model = metadata.string("tokenizer.ggml.model");
  const tokens = metadata.strings("tokenizer.ggml.tokens");
  if (model === undefined || model === "none" || tokens === undefined) return undefined;
  const id = (name: string) => tokenId(metadata, `tokenizer.ggml.${name}_token_id`, tokens.length);
  const flag = (name: string) => metadata.boolean(`tokenizer.ggml.${name}`);
  const eosTokenId = id("eos");
  const tokenTypes = perToken(metadata, "tokenizer.ggml.token_type", tokens.length);
  const named = tokens.flatMap((token, index) => {
    const isText = tokenTypes.length > 0 && tokenTypes[index] === TOKEN_NORMAL;
    return END_OF_TURN.includes(token) && !isText ? [index] : [];
  });
  const ends = [eosTokenId, id("eot"), id("eom"), ...named].filter((value) => value !== undefined);
  return {
    file: metadata.file,
    model,
    pre: metadata.string("tokenizer.ggml.pre"),
    tokens,
    scores: perToken(metadata, "tokenizer.ggml.scores", tokens.length),
    tokenTypes,
    merges: metadata.strings("tokenizer.ggml.merges") ?? [],
    bosTokenId: id("bos"),
    eosTokenId,
    unknownTokenId: id("unknown"),
    paddingTokenId: id("padding"),
    endTokenIds: [...new Set(ends)],
    addBosToken: flag("add_bos_token"),
    addEosToken: flag("add_eos_token"),
    addSpacePrefix: flag("add_space_prefix"),
    removeExtraWhitespaces: flag("remove_extra_whitespaces"),
    precompiledCharsmap: readCharsmap(metadata),
    chatTemplates: readChatTemplates(metadata),
  };
}

/** An id outside the vocabulary means that there is none, as 4294967295 does in some files. */
function tokenId(metadata: GgufMetadata, key: string, tokens: number): number | undefined {
  const id = metadata.count(key);
  return id === undefined || id >= tokens ? undefined : id;
}

function perToken(metadata: GgufMetadata, key: string, tokens: number): readonly number[] {
  const values = metadata.numbers(key);
  if (values === undefined) return [];
  if (values.length === tokens) return Array.from(values, Number);
  throw ggufInvalid(metadata.file, `has ${values.length} elements in "${key}" for ${tokens} tokens`);
}

function readCharsmap(metadata: GgufMetadata): Uint8Array | undefined {
  const charsmap = metadata.numbers("tokenizer.ggml.precompiled_charsmap");
  if (charsmap === undefined || charsmap.length === 0) return undefined;
  if (charsmap instanceof Uint8Array) return charsmap;
  // Some converters write the bytes as signed ones.
  if (charsmap instanceof Int8Array) return new Uint8Array(charsmap.buffer, charsmap.byteOffset, charsmap.length);
  throw ggufInvalid(metadata.file, "has a precompiled_charsmap that is no list of bytes");
}

function readChatTemplates(metadata: GgufMetadata): Map<string, string> {
  const templates = new Map<string, string>();
  const main = metadata.string("tokenizer.chat_template");
  if (main !== undefined) templates.set("default", main);
  for (const name of (metadata.strings("tokenizer.chat_templates") ?? []).slice(0, MAX_CHAT_TEMPLATES)) {
    const template = metadata.string(`tokenizer.chat_template.${name}`);
    if (template !== undefined) templates.set(name, template);
  }
  return templates;
}
