/** Runs in piscina's threads. A task is one whole file; tensor bytes stay in this thread's buffers. */
import { checksumOf } from "../checkpoint/checksum.js";
import { ioError } from "../checkpoint/file-io.js";
import { CHECKSUM_BLOCK_BYTES } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { NativeTransfer } from "../native/types.js";
import { BlockReader } from "./block-reader.js";
import { BlockWriter } from "./block-writer.js";
import { copyBytes, copyRows } from "./copy-rows.js";
import { encodeRows } from "./encode-rows.js";
import type { Encodings } from "./encoding.js";
import { followingRange } from "./following-range.js";
import { compressRows } from "./lz4-blocks.js";
import { quantizeRows } from "./quantize-rows.js";
import { Scratch } from "./scratch.js";
import { surveyCandidates } from "./survey.js";
import { type CheckTask, Control, failureOf, type SurveyTask, type TaskResult, type WriteTask } from "./task.js";

const BUFFER_BYTES = 4 * CHECKSUM_BLOCK_BYTES;
const reader = new BlockReader(BUFFER_BYTES);
const workspace = { reader, scratch: new Scratch() };
let output: NativeTransfer | undefined;

/** Writes one file of the store and makes it durable. The value is its checksums, as in the manifest. */
export function writeFile(task: WriteTask): TaskResult<string> {
  return attempt("write", task.file, () => {
    output ??= native().createTransfer(2, BUFFER_BYTES);
    const writer = new BlockWriter(task.file, output, new Control(task.control));
    try {
      writer.append(task.header);
      for (const [index, segment] of task.segments.entries()) {
        reader.next = followingRange(task.segments, index);
        if (segment.kind === "padding") writer.appendZeros(segment.byteLength);
        else if (segment.kind === "copy") copyBytes(segment, workspace, writer);
        else if (segment.kind === "rows") copyRows(segment, workspace, writer);
        else if (segment.kind === "lz4") compressRows(segment, workspace, writer);
        else if (segment.kind === "encode") encodeRows(segment, workspace, writer);
        else quantizeRows(segment, workspace, writer);
      }
      return writer.finish();
    } finally {
      writer.close();
    }
  });
}

/** Reads tensors of the checkpoint. The value is how each can be stored without loss, by name. */
export function surveyTensors({ candidates, control }: SurveyTask): TaskResult<Encodings> {
  return attempt("read", candidates[0]?.file ?? "", () =>
    surveyCandidates(candidates, workspace, new Control(control)),
  );
}

/** Reads one file of a store. The value is the numbers of the blocks whose checksum is wrong. */
export function checkFile(task: CheckTask): TaskResult<number[]> {
  return attempt("read", task.file, () => {
    const control = new Control(task.control);
    const damaged: number[] = [];
    for (let offset = 0; offset < task.size; offset += CHECKSUM_BLOCK_BYTES) {
      control.throwIfStopped();
      const length = Math.min(CHECKSUM_BLOCK_BYTES, task.size - offset);
      const index = offset / CHECKSUM_BLOCK_BYTES;
      const expected = task.checksums.slice(index * 8, index * 8 + 8);
      if (checksumAt(task.file, offset, length, task.size) !== expected) damaged.push(index);
      control.addBytes(length);
    }
    return damaged;
  });
}

/** Undefined if the bytes cannot be read: a bad sector is damage, not a failure of the check. */
function checksumAt(file: string, offset: number, length: number, size: number): string | undefined {
  try {
    return checksumOf(reader.read(file, offset, length, "a block", size));
  } catch (error) {
    if (error instanceof LayerstreamError && error.code === "IO_ERROR") return undefined;
    throw error;
  }
}

function attempt<T>(action: "read" | "write", file: string, work: () => T): TaskResult<T> {
  try {
    return { ok: true, value: work() };
  } catch (error) {
    return { ok: false, failure: failureOf(ioError(error, action, file)) };
  } finally {
    reader.close();
  }
}
