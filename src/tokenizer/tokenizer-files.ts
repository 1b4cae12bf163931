import { join } from "node:path";
import { type ChatTemplate, readChatTemplate } from "../chat/template.js";
import { readEosTokenIds } from "../checkpoint/generation-config.js";
import { readJsonFile } from "../checkpoint/json-file.js";
import { findFile } from "../checkpoint/safe-path.js";
import { isRecord } from "../checkpoint/strict-json.js";
import { LayerstreamError } from "../errors.js";

const TOKENIZER_FILE = "tokenizer.json";
/** The largest published files have about 40 MB. */
const MAX_TOKENIZER_BYTES = 128 * 1024 * 1024;
const MAX_TOKEN_ID = 2 ** 24;
/** Very old files name none. */
const MODEL_TYPES: readonly unknown[] = ["BPE", "WordPiece", "Unigram"];
const NAMED_TOKEN = /^(bos|eos|unk|sep|pad|cls|mask)_token$/;

export interface TokenizerFiles {
  /** Path of tokenizer.json, for errors. */
  file: string;
  tokenizer: Record<string, unknown>;
  /** tokenizer_config.json, or an empty object. */
  config: Record<string, unknown>;
  /** For example `{ eos_token: "</s>" }`. */
  specialTokens: Record<string, string>;
  chatTemplate: ChatTemplate | undefined;
  eosTokenIds: readonly number[];
}

/** Reads everything that a tokenizer consists of and checks what the library would not. */
export async function readTokenizerFiles(directory: string): Promise<TokenizerFiles> {
  const tokenizer = await readJsonFile(directory, TOKENIZER_FILE, {
    code: "TOKENIZER_INVALID",
    maxBytes: MAX_TOKENIZER_BYTES,
  });
  if (tokenizer === undefined) throw await missing(directory);
  const file = join(directory, TOKENIZER_FILE);
  checkTokenizer(tokenizer, file);
  const config = (await readJsonFile(directory, "tokenizer_config.json", { code: "TOKENIZER_INVALID" })) ?? {};
  const specialTokens = readSpecialTokens(config);
  return {
    file,
    tokenizer,
    config,
    specialTokens,
    chatTemplate: await readChatTemplate(directory, config, specialTokens),
    eosTokenIds: await readEosTokenIds(directory),
  };
}

async function missing(directory: string): Promise<LayerstreamError> {
  const file = join(directory, TOKENIZER_FILE);
  const pieces = (await findFile(directory, "tokenizer.model")) !== undefined;
  return new LayerstreamError(
    "TOKENIZER_MISSING",
    pieces ? `${directory} has tokenizer.model but no ${TOKENIZER_FILE}.` : `${directory} has no ${TOKENIZER_FILE}.`,
    {
      file,
      remedy: pieces
        ? "Save it with transformers' AutoTokenizer.save_pretrained, which writes tokenizer.json; or give token ids."
        : "Give token ids instead of text, or copy the model's tokenizer files there.",
    },
  );
}

/**
 * The library indexes an array by token ids, takes unknown types for an old one of its own, and encodes byte-fallback
 * Unigram wrongly without a word.
 */
function checkTokenizer(tokenizer: Record<string, unknown>, file: string): void {
  const { model, added_tokens: addedTokens } = tokenizer;
  const invalid = (what: string, remedy: string): LayerstreamError =>
    new LayerstreamError("TOKENIZER_INVALID", `${file}: ${what}.`, { file, remedy });
  if (!isRecord(model)) throw invalid("model is not an object", "Download the file again.");
  if (model.type !== undefined && !MODEL_TYPES.includes(model.type)) {
    const supported = `Supported: ${MODEL_TYPES.join(", ")}. Give token ids instead of text.`;
    throw invalid(`model.type is ${JSON.stringify(model.type)?.slice(0, 60)}, which is not supported`, supported);
  }
  if (model.type === "Unigram" && model.byte_fallback === true) {
    throw invalid("a Unigram model with byte_fallback is not supported", "Give token ids instead of text.");
  }
  const ids = [
    ...(isRecord(model.vocab) ? Object.values(model.vocab) : []),
    ...(Array.isArray(addedTokens) ? addedTokens.map((token: unknown) => isRecord(token) && token.id) : []),
  ];
  if (!ids.every((id) => Number.isInteger(id) && Number(id) >= 0 && Number(id) < MAX_TOKEN_ID)) {
    throw invalid(
      `it has a token whose id is not a whole number from 0 to ${MAX_TOKEN_ID - 1}`,
      "Download the file again.",
    );
  }
}

/** `bos_token` and its like, each a string or an object with the string as `content`. */
function readSpecialTokens(config: Record<string, unknown>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    const content = isRecord(value) ? value.content : value;
    if (NAMED_TOKEN.test(name) && typeof content === "string") tokens[name] = content;
  }
  return tokens;
}
