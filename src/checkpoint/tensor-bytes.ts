import { closeSync, openSync, readSync } from "node:fs";
import { LayerstreamError } from "../errors.js";
import type { CheckpointTensor } from "./checkpoint.js";
import { ioError } from "./file-io.js";

/** Part of a tensor's bytes; blocks the thread, so for small ones. @throws IO_ERROR naming file and offset */
export function readTensorBytes(
  { name, shard, offset }: CheckpointTensor,
  start: number,
  byteLength: number,
): Uint8Array {
  const bytes = new Uint8Array(byteLength);
  let descriptor: number | undefined;
  let done = 0;
  try {
    descriptor = openSync(shard.realPath, "r");
    while (done < byteLength) {
      const count = readSync(descriptor, bytes, done, byteLength - done, offset + start + done);
      if (count === 0) break;
      done += count;
    }
  } catch (error) {
    throw ioError(error, "read", shard.path, offset + start + done);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
  if (done === byteLength) return bytes;
  throw new LayerstreamError("IO_ERROR", `${shard.path} ended in the middle of "${name}".`, {
    file: shard.path,
    tensor: name,
    offset: offset + start + done,
    remedy: "The file became shorter while it was read: restore it and try again.",
  });
}
