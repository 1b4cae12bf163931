import { join } from "node:path";
import { LayerstreamError } from "../errors.js";
import { readJsonFile } from "./json-file.js";

/** In the order in which they are asked. */
const FILES = ["generation_config.json", "config.json"];
const MAX_TOKEN_ID = 2 ** 24;
const MAX_TOKENS = 1024;

/**
 * Tokens that end a generation: `eos_token_id` (a number or a list) of generation_config.json, or else of config.json.
 * Empty if neither says.
 * @throws CONFIG_INVALID if a file is damaged or the value is no token id; UNSAFE_PATH, IO_ERROR
 */
export async function readEosTokenIds(directory: string): Promise<readonly number[]> {
  for (const name of FILES) {
    const config = await readJsonFile(directory, name, { code: "CONFIG_INVALID" });
    const value = config?.eos_token_id ?? undefined;
    if (value === undefined) continue;
    const ids: readonly unknown[] = Array.isArray(value) ? value : [value];
    if (ids.length > MAX_TOKENS || !ids.every(isTokenId)) {
      const file = join(directory, name);
      throw new LayerstreamError("CONFIG_INVALID", `${file}: eos_token_id is not a token id or a list of token ids.`, {
        file,
        remedy: `Token ids are whole numbers from 0 to ${MAX_TOKEN_ID - 1}.`,
      });
    }
    return ids;
  }
  return [];
}

function isTokenId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_TOKEN_ID;
}
