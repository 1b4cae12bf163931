import { join } from "node:path";
import { findOriginalFormat, type ModelIdentity, type OriginalFormat } from "../chat/original-formats.js";
import { ChatTemplate, readChatTemplate } from "../chat/template.js";
import { readEosTokenIds } from "../checkpoint/generation-config.js";
import { readBytes, readJsonFile } from "../checkpoint/json-file.js";
import { type ErrorCode, LayerstreamError } from "../errors.js";
import type { AddedToken } from "./added-tokens.js";
import { readAddedTokens, readNamedTokens } from "./declared-tokens.js";

/** The largest published files have about 40 MB. */
const MAX_VOCABULARY_BYTES = 128 * 1024 * 1024;
const INVALID = "TOKENIZER_INVALID";

/** Files that a vocabulary may be in, in the order in which they are tried. */
const VOCABULARY_FILES = ["tokenizer.json", "tokenizer.model", "qwen.tiktoken"] as const;

/** A file with a vocabulary, not looked into. */
export type VocabularyFile =
  | { name: "tokenizer.json"; file: string; tokenizer: Record<string, unknown> }
  | { name: "tokenizer.model" | "qwen.tiktoken"; file: string; bytes: Uint8Array };

/** Everything beside the vocabulary that a tokenizer consists of. */
export interface TokenizerSettings {
  identity: ModelIdentity;
  /** tokenizer_config.json, or an empty object. */
  config: Record<string, unknown>;
  /** For example `{ eos_token: "</s>" }`. */
  specialTokens: Record<string, string>;
  addedTokens: readonly AddedToken[];
  chatTemplate: ChatTemplate | undefined;
  /** In use where the checkpoint has no template of its own. */
  originalFormat: OriginalFormat | undefined;
  eosTokenIds: readonly number[];
}

/**
 * The vocabulary files of a checkpoint, one after the other: the next is asked for where one cannot be used.
 * @throws TOKENIZER_MISSING if there is none, TOKENIZER_INVALID, UNSAFE_PATH, IO_ERROR
 */
export async function* readVocabularies(directory: string): AsyncGenerator<VocabularyFile> {
  let found = false;
  const limits = { code: INVALID, maxBytes: MAX_VOCABULARY_BYTES } as const;
  for (const name of VOCABULARY_FILES) {
    const file = join(directory, name);
    if (name === "tokenizer.json") {
      const tokenizer = await readJsonFile(directory, name, limits);
      if (tokenizer === undefined) continue;
      found = true;
      yield { name, file, tokenizer };
    } else {
      const bytes = await readBytes(directory, name, limits);
      if (bytes === undefined) continue;
      found = true;
      yield { name, file, bytes };
    }
  }
  if (found) return;
  throw new LayerstreamError("TOKENIZER_MISSING", `${directory} has none of ${VOCABULARY_FILES.join(", ")}.`, {
    file: join(directory, VOCABULARY_FILES[0]),
    remedy: "Give token ids instead of text, or copy the model's tokenizer files there.",
  });
}

/**
 * Reads the configuration files beside the vocabulary.
 * @throws TOKENIZER_INVALID, CONFIG_INVALID, CHAT_TEMPLATE_INVALID for damaged files; UNSAFE_PATH, IO_ERROR
 */
export async function readTokenizerSettings(directory: string): Promise<TokenizerSettings> {
  const read = async (name: string, code: ErrorCode) => (await readJsonFile(directory, name, { code })) ?? {};
  const config = await read("tokenizer_config.json", INVALID);
  const modelConfig = await read("config.json", "CONFIG_INVALID");
  const identity: ModelIdentity = {
    modelType: typeof modelConfig.model_type === "string" ? modelConfig.model_type : "",
    config: modelConfig,
    tokenizerConfig: config,
    generationConfig: await read("generation_config.json", "CONFIG_INVALID"),
  };
  const specialTokens = {
    ...readNamedTokens(await read("special_tokens_map.json", INVALID)),
    ...readNamedTokens(config),
  };
  let addedTokens: AddedToken[];
  try {
    addedTokens = readAddedTokens(config, await read("added_tokens.json", INVALID), Object.values(specialTokens));
  } catch (cause) {
    if (cause instanceof LayerstreamError) throw cause;
    const file = join(directory, "tokenizer_config.json");
    throw new LayerstreamError(INVALID, `${file} or added_tokens.json: ${(cause as Error).message}.`, {
      file,
      remedy: "Download the files again.",
      cause,
    });
  }
  const chatTemplate = await readChatTemplate(directory, config, specialTokens);
  const originalFormat = chatTemplate === undefined ? findOriginalFormat(identity) : undefined;
  return {
    identity,
    config,
    specialTokens,
    addedTokens,
    chatTemplate,
    originalFormat,
    eosTokenIds: await readEosTokenIds(directory),
  };
}

/** The checkpoint's own template, or that of its family. */
export function chatTemplateOf(settings: TokenizerSettings, directory: string): ChatTemplate | undefined {
  const { chatTemplate, originalFormat, specialTokens, identity } = settings;
  if (chatTemplate !== undefined || originalFormat === undefined) return chatTemplate;
  const tokens = { bos_token: "<s>", eos_token: "</s>", ...specialTokens };
  const file = `${directory} (the original format of ${identity.modelType})`;
  return new ChatTemplate(new Map([["default", originalFormat.template]]), tokens, file);
}
