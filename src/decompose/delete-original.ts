import { lstat, readdir, realpath, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Checkpoint, Shard } from "../checkpoint/checkpoint.js";
import { ioError } from "../checkpoint/file-io.js";
import { cacheFolderOf } from "../checkpoint/safe-path.js";
import { LayerstreamError } from "../errors.js";

/**
 * Deletes the shards that were read, and nothing else: config and tokenizer stay. In the Hugging Face cache the blob
 * goes too, unless another revision links to it. A link within an ordinary directory goes, what it leads to stays.
 * @returns the paths that are gone
 * @throws STORE_OUTDATED, before anything is deleted, if a shard is no longer the file that was read
 */
export async function deleteShards(checkpoint: Checkpoint): Promise<string[]> {
  for (const shard of checkpoint.shards) await checkUnchanged(shard);
  const deleted: string[] = [];
  for (const shard of checkpoint.shards) {
    const paths = shard.blob && !(await isSharedBlob(shard)) ? [shard.path, shard.realPath] : [shard.path];
    for (const path of paths) {
      await rm(path).catch((error) => {
        throw ioError(error, "write", path);
      });
      deleted.push(path);
    }
  }
  return deleted;
}

async function checkUnchanged(shard: Shard): Promise<void> {
  const now = await stat(shard.path).catch(() => undefined);
  if (now?.size === shard.size && now.mtimeMs === shard.modifiedMs) return;
  throw new LayerstreamError("STORE_OUTDATED", `${shard.path} changed after it was read, so nothing was deleted.`, {
    file: shard.path,
    remedy: "Decompose the checkpoint again.",
  });
}

async function isSharedBlob(shard: Shard): Promise<boolean> {
  const folder = cacheFolderOf(await realpath(dirname(shard.path)));
  if (!folder) return true;
  const snapshots = join(folder, "snapshots");
  const own = await realpath(dirname(shard.path));
  for (const entry of await readdir(snapshots, { recursive: true })) {
    const path = join(snapshots, entry);
    if (path === join(own, shard.name) || !(await lstat(path)).isSymbolicLink()) continue;
    if ((await realpath(path).catch(() => "")) === shard.realPath) return true;
  }
  return false;
}
