/** Rows compressed in blocks: see `StoredTensor.lz4`. */
import { compressSync } from "lz4-napi";
import { LayerstreamError } from "../errors.js";
import type { BlockWriter } from "./block-writer.js";
import type { Lz4Segment } from "./layout.js";
import { openRows } from "./open-rows.js";
import type { RowReader, Workspace } from "./row-source.js";

/** What lz4-napi puts before a block: its size, which the manifest knows. */
const PREFIX_BYTES = 4;

/** Appends a matrix block by block. */
export function compressRows(segment: Lz4Segment, workspace: Workspace, writer: BlockWriter): void {
  const { source, rows, bytes, name, file } = segment;
  let block = 0;
  for (const plain of rowBlocks(openRows(source, workspace), rows)) {
    const stored = lz4Block(plain);
    if (stored.length !== bytes[block]) {
      throw new LayerstreamError(
        "STORE_OUTDATED",
        `${file}: rows from ${block * rows} on of tensor "${name}" are not those that were surveyed.`,
        {
          file,
          tensor: name,
          remedy: "Delete the unfinished store, and run again when nothing writes to the checkpoint.",
        },
      );
    }
    writer.append(stored);
    block++;
  }
}

/** `plain` compressed, or as it is if that is no smaller. */
export function lz4Block(plain: Uint8Array): Uint8Array {
  const compressed = compressSync(Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength));
  return compressed.length - PREFIX_BYTES < plain.length ? compressed.subarray(PREFIX_BYTES) : plain;
}

/** All rows, `count` at a time, the rest at the end; valid until the next. */
export function* rowBlocks(rows: RowReader, count: number): Generator<Uint8Array> {
  const blocks = Math.floor(rows.rowsAtOnce / count);
  const blockBytes = count * rows.rowBytes;
  if (blocks === 0) {
    yield* gatheredBlocks(rows, count);
    return;
  }
  for (let first = 0; first < rows.rows; first += blocks * count) {
    const bytes = rows.read(first, Math.min(blocks * count, rows.rows - first));
    for (let begin = 0; begin < bytes.length; begin += blockBytes) yield bytes.subarray(begin, begin + blockBytes);
  }
}

function* gatheredBlocks(rows: RowReader, count: number): Generator<Uint8Array> {
  const memory = new Uint8Array(count * rows.rowBytes);
  for (let begin = 0; begin < rows.rows; begin += count) {
    const end = Math.min(begin + count, rows.rows);
    for (let first = begin; first < end; first += rows.rowsAtOnce) {
      memory.set(rows.read(first, Math.min(rows.rowsAtOnce, end - first)), (first - begin) * rows.rowBytes);
    }
    yield memory.subarray(0, (end - begin) * rows.rowBytes);
  }
}
