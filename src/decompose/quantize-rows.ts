import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { SCALE_BYTES } from "../quant/format.js";
import { formatOf } from "../quant/registry.js";
import type { BlockReader } from "./block-reader.js";
import type { BlockWriter } from "./block-writer.js";
import type { QuantizeSegment } from "./layout.js";

/**
 * Reads a matrix in pieces that fit into the reader, and appends it quantized. Rows longer than that are quantized in
 * runs of whole blocks, which gives the same bytes.
 */
export function quantizeRows(segment: QuantizeSegment, reader: BlockReader, writer: BlockWriter): void {
  const sourceRowBytes = formatOf(segment.sourceFormat).rowBytes(segment.columns);
  if (sourceRowBytes > reader.capacity) quantizeLongRows(segment, reader, writer, sourceRowBytes);
  else quantizeWholeRows(segment, reader, writer, sourceRowBytes);
}

function quantizeWholeRows(
  segment: QuantizeSegment,
  reader: BlockReader,
  writer: BlockWriter,
  sourceRowBytes: number,
): void {
  const { rows, columns, format, block, offset, name } = segment;
  const rowBytes = native().rowBytes(format, columns, block);
  const oneRow = new Uint8Array(rowBytes);
  const rowsAtOnce = Math.floor(reader.capacity / sourceRowBytes);
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const batch = Math.min(rowsAtOnce, rows - row);
    const source = reader.read(segment.source, offset + row * sourceRowBytes, batch * sourceRowBytes, name);
    for (let done = 0; done < batch; ) {
      const space = writer.space();
      const fitting = Math.min(batch - done, Math.floor(space.length / rowBytes));
      const count = Math.max(fitting, 1);
      const output = fitting > 0 ? space.subarray(0, count * rowBytes) : oneRow;
      const piece = source.subarray(done * sourceRowBytes, (done + count) * sourceRowBytes);
      quantize(segment, piece, count, columns, output, row + done);
      if (fitting > 0) writer.commit(output.length);
      else writer.append(oneRow);
      done += count;
    }
  }
}

function quantizeLongRows(
  segment: QuantizeSegment,
  reader: BlockReader,
  writer: BlockWriter,
  sourceRowBytes: number,
): void {
  const { rows, columns, format, block, name } = segment;
  const elementBytes = sourceRowBytes / columns;
  const columnsAtOnce = Math.floor(reader.capacity / elementBytes / block) * block;
  const output = new Uint8Array(native().rowBytes(format, columnsAtOnce, block));
  const scales = new Uint8Array(Math.ceil(columns / block) * SCALE_BYTES);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column += columnsAtOnce) {
      const count = Math.min(columnsAtOnce, columns - column);
      const offset = segment.offset + row * sourceRowBytes + column * elementBytes;
      const source = reader.read(segment.source, offset, count * elementBytes, name);
      const piece = output.subarray(0, native().rowBytes(format, count, block));
      quantize(segment, source, 1, count, piece, row);
      const codeBytes = piece.length - Math.ceil(count / block) * SCALE_BYTES;
      writer.append(piece.subarray(0, codeBytes));
      scales.set(piece.subarray(codeBytes), (column / block) * SCALE_BYTES);
    }
    writer.append(scales);
  }
}

function quantize(
  segment: QuantizeSegment,
  source: Uint8Array,
  rows: number,
  columns: number,
  output: Uint8Array,
  firstRow: number,
): void {
  const { sourceFormat, format, block, name, source: file, offset } = segment;
  if (native().quantize(sourceFormat, source, rows, columns, format, block, output)) return;
  const lastRow = firstRow + rows - 1;
  throw new LayerstreamError(
    "QUANTIZATION_FAILED",
    `${file}: tensor "${name}" has a value in rows ${firstRow} to ${lastRow} that is not finite or too large for ${format}.`,
    { file, tensor: name, offset, remedy: 'Check the checkpoint, or use compression "none".' },
  );
}
