/**
 * What the tokenizers of families with code of their own ("remote code") do beside their vocabulary file. Nothing of
 * that code runs here; each entry says where it was read.
 */
import { isChatGlm3, type ModelIdentity } from "../chat/original-formats.js";
import type { AddedToken } from "./added-tokens.js";

/** Special tokens that are not in the vocabulary file, and what comes before a prompt. */
export interface OriginalTokens {
  added: AddedToken[];
  prefix: number[];
}

const CHATGLM_TOKENS: readonly string[] = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
const CHATGLM3_ROLES: readonly string[] = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];
/** Would be found within "philosophy" and "people": in text they count only as the end of `[gMASK]sop`. */
const CHATGLM_WORDS: readonly string[] = ["sop", "eop"];

/**
 * ChatGLM2 and ChatGLM3 count their special tokens on from the pieces of tokenizer.model, and put [gMASK] and sop
 * before every prompt.
 * Source: huggingface.co/THUDM/chatglm2-6b and chatglm3-6b, tokenization_chatglm.py (SPTokenizer.__init__,
 * get_prefix_tokens).
 */
export function chatGlmTokens(pieces: number, identity: ModelIdentity): OriginalTokens {
  const names = [...CHATGLM_TOKENS, ...(isChatGlm3(identity) ? CHATGLM3_ROLES : [])];
  const id = (name: string): number => pieces + names.indexOf(name);
  const prefix = [id("[gMASK]"), id("sop")];
  const added = names.map((content): AddedToken => {
    return { content, ids: [id(content)], special: true, hidden: CHATGLM_WORDS.includes(content) };
  });
  return { added: [...added, { content: "[gMASK]sop", ids: prefix, special: true }], prefix };
}

const CONTRACTIONS = "'(?:[sS\\u017F]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const WHITE = "\\p{White_Space}";

/** The pattern of cl100k and its descendants, with `digits` for the digits that stay together. */
function wordPattern(digits: string): RegExp {
  return new RegExp(
    `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^${WHITE}\\p{L}\\p{N}]+[\\r\\n]*|` +
      `${WHITE}*[\\r\\n]+|${WHITE}+(?!\\P{White_Space})|${WHITE}+`,
    "gu",
  );
}

/** Source: huggingface.co/Qwen/Qwen-7B, tokenization_qwen.py (PAT_STR, SPECIAL_TOKENS). */
export const QWEN_PATTERN = wordPattern("\\p{N}");

/** Source: huggingface.co/THUDM/glm-4-9b, tokenization_chatglm.py (ChatGLM4Tokenizer.__init__). */
export const GLM4_PATTERN = wordPattern("\\p{N}{1,3}");

const QWEN_EXTRAS = 205;

/** The special tokens of QWen v1, counted on from the ranks of qwen.tiktoken. Source: as QWEN_PATTERN. */
export function qwenTokens(ranks: number): AddedToken[] {
  const extras = Array.from({ length: QWEN_EXTRAS }, (_, i) => `<|extra_${i}|>`);
  return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", ...extras].map((content, i) => ({
    content,
    ids: [ranks + i],
    special: true,
  }));
}
