/** Runs in piscina's threads. A task is one whole file; tensor bytes stay in this thread's two buffers. */
import { closeSync, fsyncSync, openSync, readSync } from "node:fs";
import { checksumOf } from "../checkpoint/checksum.js";
import { ioError } from "../checkpoint/file-io.js";
import { CHECKSUM_BLOCK_BYTES } from "../checkpoint/manifest.js";
import type { LayerstreamError } from "../errors.js";
import { BlockReader } from "./block-reader.js";
import { BlockWriter } from "./block-writer.js";
import { quantizeRows } from "./quantize-rows.js";
import { type CheckTask, Control, failureOf, type TaskResult, type WriteTask } from "./task.js";

const BUFFER_BYTES = 4 * CHECKSUM_BLOCK_BYTES;
const output = Buffer.allocUnsafeSlow(BUFFER_BYTES);
let input: Uint8Array | undefined;

/** Writes one file of the store and makes it durable. The value is its checksums, as in the manifest. */
export function writeFile(task: WriteTask): TaskResult<string> {
  return attempt("write", task.file, () => {
    const reader = new BlockReader();
    const descriptor = openSync(task.file, "w");
    try {
      const writer = new BlockWriter(task.file, descriptor, output, new Control(task.control));
      writer.append(task.header);
      for (const segment of task.segments) {
        if (segment.kind === "padding") writer.appendZeros(segment.byteLength);
        else if (segment.kind === "copy") copy(segment, reader, writer);
        else {
          input ??= Buffer.allocUnsafeSlow(BUFFER_BYTES);
          quantizeRows(segment, reader, writer, input);
        }
      }
      const checksums = writer.finish();
      fsyncSync(descriptor);
      return checksums;
    } finally {
      closeSync(descriptor);
      reader.close();
    }
  });
}

function copy(
  segment: { name: string; source: string; offset: number; byteLength: number },
  reader: BlockReader,
  writer: BlockWriter,
): void {
  for (let done = 0; done < segment.byteLength; ) {
    const piece = writer.space().subarray(0, segment.byteLength - done);
    reader.readInto(piece, segment.source, segment.offset + done, segment.name);
    done += piece.length;
    writer.commit(piece.length);
  }
}

/** Reads one file of a store. The value is the numbers of the blocks whose checksum is wrong. */
export function checkFile(task: CheckTask): TaskResult<number[]> {
  return attempt("read", task.file, () => {
    const control = new Control(task.control);
    const damaged: number[] = [];
    const descriptor = openSync(task.file, "r");
    try {
      for (let offset = 0; offset < task.size; offset += CHECKSUM_BLOCK_BYTES) {
        control.throwIfStopped();
        const block = output.subarray(0, Math.min(CHECKSUM_BLOCK_BYTES, task.size - offset));
        const index = offset / CHECKSUM_BLOCK_BYTES;
        const expected = task.checksums.slice(index * 8, index * 8 + 8);
        if (!readBlock(descriptor, block, offset) || checksumOf(block) !== expected) damaged.push(index);
        control.addBytes(block.length);
      }
    } finally {
      closeSync(descriptor);
    }
    return damaged;
  });
}

/** False if the block cannot be read in full: a bad sector is damage, not a failure of the check. */
function readBlock(descriptor: number, block: Uint8Array, offset: number): boolean {
  try {
    for (let done = 0; done < block.length; ) {
      const count = readSync(descriptor, block, done, block.length - done, offset + done);
      if (count === 0) return false;
      done += count;
    }
    return true;
  } catch {
    return false;
  }
}

function attempt<T>(action: "read" | "write", file: string, work: () => T): TaskResult<T> {
  try {
    return { ok: true, value: work() };
  } catch (error) {
    const failure: LayerstreamError = ioError(error, action, file);
    return { ok: false, failure: failureOf(failure) };
  }
}
