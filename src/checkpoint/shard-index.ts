import { join } from "node:path";
import { LayerstreamError } from "../errors.js";
import { readJsonFile } from "./json-file.js";
import { findFile, type SafeFile } from "./safe-path.js";
import { isRecord } from "./strict-json.js";

/** Names under which weights are found, in this order: all in one file, or in the shards that an index names. */
export const WEIGHT_FILES = [
  { single: "model.safetensors", index: "model.safetensors.index.json" },
  { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json" },
] as const;

const MAX_INDEX_BYTES = 256 * 1024 * 1024;

/** What the index says: tensor name to shard name, in the order of the file. */
export interface ShardIndex {
  file: string;
  weightMap: ReadonlyMap<string, string>;
}

/**
 * Undefined if the directory has no index.
 * @throws SHARD_INDEX_INVALID if it is not JSON, has no weight_map, or maps names to something else than files.
 */
export async function readShardIndex(directory: string, name: string): Promise<ShardIndex | undefined> {
  const limits = { code: "SHARD_INDEX_INVALID", maxBytes: MAX_INDEX_BYTES } as const;
  const value = await readJsonFile(directory, name, limits);
  if (value === undefined) return undefined;
  const file = join(directory, name);
  const problem = (what: string) =>
    new LayerstreamError("SHARD_INDEX_INVALID", `${file} ${what}.`, { file, remedy: "Download the checkpoint again." });
  const map = value.weight_map;
  if (!isRecord(map)) throw problem('has no object "weight_map"');
  const entries = Object.entries(map);
  if (entries.length === 0) throw problem('has an empty "weight_map"');
  for (const [tensor, shard] of entries) {
    if (typeof shard !== "string") {
      throw problem(`maps tensor "${tensor}" to ${JSON.stringify(shard)}, not to a file name`);
    }
  }
  return { file, weightMap: new Map(entries as [string, string][]) };
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
