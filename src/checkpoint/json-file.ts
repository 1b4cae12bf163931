import { readFile } from "node:fs/promises";
import { type ErrorCode, LayerstreamError } from "../errors.js";
import { ioError } from "./file-io.js";
import { findFile } from "./safe-path.js";
import { isRecord, JsonError, parseStrictJson } from "./strict-json.js";

const MAX_DEPTH = 64;
const MAX_BYTES = 16 * 1024 * 1024;

/** The settings of `readTextFile` and `readJsonFile`. */
export interface FileLimits {
  /** Of the error that a file which cannot be right raises. */
  code: ErrorCode;
  maxBytes?: number;
}

/**
 * Bytes of `name` in a checkpoint's directory; undefined if there is no such file.
 * @throws `code` if the file is larger than `maxBytes`; UNSAFE_PATH, IO_ERROR
 */
export async function readBytes(directory: string, name: string, limits: FileLimits): Promise<Buffer | undefined> {
  const found = await findFile(directory, name);
  if (found === undefined) return undefined;
  const maxBytes = limits.maxBytes ?? MAX_BYTES;
  if (found.size > maxBytes) throw invalid(found.path, `has ${found.size} bytes; at most ${maxBytes} are read`, limits);
  try {
    return await readFile(found.realPath);
  } catch (error) {
    throw ioError(error, "read", found.path);
  }
}

/** As `readBytes`, as text. */
export async function readTextFile(directory: string, name: string, limits: FileLimits): Promise<string | undefined> {
  return (await readBytes(directory, name, limits))?.toString("utf8");
}

/**
 * The object in the JSON file `name` of a checkpoint's directory; undefined if there is no such file.
 * @throws `code` if the file is too large, too deep, not JSON, or not an object; UNSAFE_PATH, IO_ERROR
 */
export async function readJsonFile(
  directory: string,
  name: string,
  limits: FileLimits,
): Promise<Record<string, unknown> | undefined> {
  const bytes = await readBytes(directory, name, limits);
  if (bytes === undefined) return undefined;
  const path = `${directory}/${name}`;
  try {
    const value = parseStrictJson(bytes, MAX_DEPTH);
    if (isRecord(value)) return value;
  } catch (error) {
    if (error instanceof JsonError) throw invalid(path, error.message, limits, error);
    throw error;
  }
  throw invalid(path, "is not a JSON object", limits);
}

function invalid(file: string, what: string, limits: FileLimits, cause?: unknown): LayerstreamError {
  return new LayerstreamError(limits.code, `${file} ${what}.`, { file, cause, remedy: "Download the file again." });
}
