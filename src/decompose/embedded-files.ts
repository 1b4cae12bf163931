import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { ggufTokenizerFiles } from "../tokenizer/gguf-tokenizer.js";

/**
 * Files, by name, that the store needs and that a GGUF file holds in its metadata instead: config.json, and those of the
 * tokenizer and of generation. Empty for other checkpoints.
 * @throws TOKENIZER_INVALID
 */
export function embeddedFiles({ path, config, gguf }: Checkpoint): Map<string, Uint8Array> {
  if (gguf === undefined) return new Map();
  const files = gguf.vocabulary ? ggufTokenizerFiles(gguf.vocabulary, path) : new Map<string, Uint8Array>();
  return files.set("config.json", Buffer.from(`${JSON.stringify(config, null, 2)}\n`));
}
