import { isRecord } from "../checkpoint/strict-json.js";
import type { AddedToken } from "./added-tokens.js";

export const MAX_TOKEN_ID = 2 ** 24;

const NAMED_TOKEN = /^(bos|eos|unk|sep|pad|cls|mask)_token$/;

/** `bos_token` and its like, each a string or an object with the string as `content`. */
export function readNamedTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    const content = isRecord(value) ? value.content : value;
    if (NAMED_TOKEN.test(name) && typeof content === "string") tokens[name] = content;
  }
  return tokens;
}

/**
 * The added tokens of `added_tokens_decoder` in tokenizer_config.json, and of added_tokens.json, where the former has
 * none of the same id.
 * @param named contents of `eos_token` and its like, which are special.
 * @throws Error for ids that cannot be.
 */
export function readAddedTokens(
  config: Readonly<Record<string, unknown>>,
  addedTokens: Readonly<Record<string, unknown>>,
  named: readonly string[],
): AddedToken[] {
  const tokens = new Map<number, AddedToken>();
  for (const [content, value] of Object.entries(addedTokens)) {
    const id = checkId(value, content);
    tokens.set(id, { content, ids: [id], special: named.includes(content) });
  }
  const decoder = config.added_tokens_decoder;
  for (const [key, entry] of Object.entries(isRecord(decoder) ? decoder : {})) {
    const id = checkId(/^\d{1,9}$/.test(key) ? Number(key) : undefined, key);
    const { content, special, lstrip, rstrip, single_word: singleWord } = isRecord(entry) ? entry : {};
    if (typeof content !== "string") throw new Error(`added_tokens_decoder has no text for ${id}`);
    tokens.set(id, {
      content,
      ids: [id],
      special: special === true,
      lstrip: lstrip === true,
      rstrip: rstrip === true,
      singleWord: singleWord === true,
    });
  }
  return [...tokens.values()];
}

function checkId(id: unknown, name: string): number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_TOKEN_ID) return id;
  throw new Error(`the added token ${JSON.stringify(name.slice(0, 60))} has no id from 0 to ${MAX_TOKEN_ID - 1}`);
}
