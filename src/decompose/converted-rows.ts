import type { BlockWriter } from "./block-writer.js";
import { batches } from "./copy-rows.js";
import type { RowReader } from "./row-source.js";

/**
 * Appends all rows as `convert` gives them, `rowBytes` each; it is called with the bytes of `count` rows, the first of
 * them number `first`, and fills `output`.
 */
export function appendConverted(
  rows: RowReader,
  rowBytes: number,
  writer: BlockWriter,
  convert: (bytes: Uint8Array, first: number, count: number, output: Uint8Array) => void,
): void {
  const oneRow = new Uint8Array(rowBytes);
  for (const batch of batches(rows)) {
    for (let done = 0; done < batch.count; ) {
      const space = writer.space();
      const fitting = Math.min(batch.count - done, Math.floor(space.length / rowBytes));
      const count = Math.max(fitting, 1);
      const output = fitting > 0 ? space.subarray(0, count * rowBytes) : oneRow;
      convert(batch.bytes.subarray(done * rows.rowBytes), batch.first + done, count, output);
      if (fitting > 0) writer.commit(output.length);
      else writer.append(oneRow);
      done += count;
    }
  }
}
