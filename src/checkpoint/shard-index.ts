import { readFile } from "node:fs/promises";
import { LayerstreamError } from "../errors.js";
import { ioError } from "./file-io.js";
import { findFile, type SafeFile } from "./safe-path.js";
import { isRecord, JsonError, parseStrictJson } from "./strict-json.js";

export const SINGLE_SHARD = "model.safetensors";
export const SHARD_INDEX = "model.safetensors.index.json";

const MAX_INDEX_BYTES = 256 * 1024 * 1024;

/** What the index says: tensor name to shard name, in the order of the file. */
export interface ShardIndex {
  file: string;
  weightMap: ReadonlyMap<string, string>;
}

/** @throws SHARD_INDEX_INVALID if it is not JSON, has no weight_map, or maps names to something else than files. */
export async function readShardIndex(index: SafeFile): Promise<ShardIndex> {
  const problem = (what: string) =>
    new LayerstreamError("SHARD_INDEX_INVALID", `${index.path} ${what}.`, {
      file: index.path,
      remedy: "Download the checkpoint again.",
    });
  if (index.size > MAX_INDEX_BYTES) throw problem(`has ${index.size} bytes, more than an index can need`);
  let value: unknown;
  try {
    value = parseStrictJson(await readFile(index.realPath), 8);
  } catch (error) {
    throw error instanceof JsonError ? problem(error.message) : ioError(error, "read", index.path);
  }
  const map = isRecord(value) ? value.weight_map : undefined;
  if (!isRecord(map)) throw problem('has no object "weight_map"');
  const entries = Object.entries(map);
  if (entries.length === 0) throw problem('has an empty "weight_map"');
  for (const [tensor, shard] of entries) {
    if (typeof shard !== "string")
      throw problem(`maps tensor "${tensor}" to ${JSON.stringify(shard)}, not to a file name`);
  }
  return { file: index.path, weightMap: new Map(entries as [string, string][]) };
}

/**
 * The shards that the index names, each once.
 * @throws SHARD_INDEX_INVALID for a shard that is missing; UNSAFE_PATH for one outside the directory.
 */
export async function findShards(directory: string, index: ShardIndex): Promise<SafeFile[]> {
  const names = [...new Set(index.weightMap.values())].sort();
  const shards: SafeFile[] = [];
  for (const name of names) {
    const shard = await findFile(directory, name);
    if (!shard) {
      throw new LayerstreamError("SHARD_INDEX_INVALID", `${index.file} names shard "${name}", which is missing.`, {
        file: index.file,
        remedy: "Download the missing shard into the same directory.",
      });
    }
    shards.push(shard);
  }
  return shards;
}
