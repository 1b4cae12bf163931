import type { BlockWriter } from "./block-writer.js";
import type { CopySegment, RowsSegment } from "./layout.js";
import { openRows } from "./open-rows.js";
import type { RowReader, Workspace } from "./row-source.js";
import { contiguousRange } from "./strided-rows.js";

/** Appends a range of a file. */
export function copyBytes(segment: CopySegment, { reader }: Workspace, writer: BlockWriter): void {
  const { source, offset, byteLength, name } = segment;
  for (let done = 0; done < byteLength; ) {
    const piece = reader.read(
      source,
      offset + done,
      Math.min(byteLength - done, reader.capacity),
      name,
      offset + byteLength,
    );
    writer.append(piece);
    done += piece.length;
  }
}

/** Appends rows as they are. */
export function copyRows({ name, source }: RowsSegment, workspace: Workspace, writer: BlockWriter): void {
  const range = source.kind === "strided" ? contiguousRange(source) : undefined;
  if (source.kind === "strided" && range) {
    copyBytes({ kind: "copy", name, source: source.file, ...range }, workspace, writer);
    return;
  }
  for (const rows of batches(openRows(source, workspace))) writer.append(rows.bytes);
}

/** All rows, as many at once as the reader gives. */
export function* batches(rows: RowReader): Generator<{ first: number; count: number; bytes: Uint8Array }> {
  for (let first = 0; first < rows.rows; first += rows.rowsAtOnce) {
    const count = Math.min(rows.rowsAtOnce, rows.rows - first);
    yield { first, count, bytes: rows.read(first, count) };
  }
}
