import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { SCALE_BYTES } from "../quant/format.js";
import { formatOf } from "../quant/registry.js";
import type { BlockReader } from "./block-reader.js";
import type { BlockWriter } from "./block-writer.js";
import type { QuantizeSegment } from "./layout.js";

/**
 * Reads a matrix in pieces that fit into `input`, and appends it quantized. Rows longer than `input` are quantized
 * in runs of whole blocks, which gives the same bytes.
 */
export function quantizeRows(
  segment: QuantizeSegment,
  reader: BlockReader,
  writer: BlockWriter,
  input: Uint8Array,
): void {
  const sourceRowBytes = formatOf(segment.sourceFormat).rowBytes(segment.columns);
  if (sourceRowBytes > input.length) quantizeLongRows(segment, reader, writer, input, sourceRowBytes);
  else quantizeWholeRows(segment, reader, writer, input, sourceRowBytes);
}

function quantizeWholeRows(
  segment: QuantizeSegment,
  reader: BlockReader,
  writer: BlockWriter,
  input: Uint8Array,
  sourceRowBytes: number,
): void {
  const rowBytes = native().rowBytes(segment.format, segment.columns, segment.block);
  const oneRow = new Uint8Array(rowBytes);
  const rowsAtOnce = Math.floor(input.length / sourceRowBytes);
  for (let row = 0; row < segment.rows; row += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, segment.rows - row);
    const source = input.subarray(0, rows * sourceRowBytes);
    reader.readInto(source, segment.source, segment.offset + row * sourceRowBytes, segment.name);
    for (let done = 0; done < rows; ) {
      const space = writer.space();
      const fitting = Math.min(rows - done, Math.floor(space.length / rowBytes));
      const count = Math.max(fitting, 1);
      const output = fitting > 0 ? space.subarray(0, count * rowBytes) : oneRow;
      const piece = source.subarray(done * sourceRowBytes, (done + count) * sourceRowBytes);
      quantize(segment, piece, count, segment.columns, output, row + done);
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
  input: Uint8Array,
  sourceRowBytes: number,
): void {
  const { columns, block } = segment;
  const elementBytes = sourceRowBytes / columns;
  const columnsAtOnce = Math.floor(input.length / elementBytes / block) * block;
  const output = new Uint8Array(native().rowBytes(segment.format, columnsAtOnce, block));
  const scales = new Uint8Array(Math.ceil(columns / block) * SCALE_BYTES);
  for (let row = 0; row < segment.rows; row++) {
    for (let column = 0; column < columns; column += columnsAtOnce) {
      const count = Math.min(columnsAtOnce, columns - column);
      const source = input.subarray(0, count * elementBytes);
      const offset = segment.offset + row * sourceRowBytes + column * elementBytes;
      reader.readInto(source, segment.source, offset, segment.name);
      const piece = output.subarray(0, native().rowBytes(segment.format, count, block));
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
  throw new LayerstreamError(
    "QUANTIZATION_FAILED",
    `${file}: tensor "${name}" has a value in rows ${firstRow} to ${firstRow + rows - 1} that is not finite or too large for ${format}.`,
    { file, tensor: name, offset, remedy: 'Check the checkpoint, or use compression "none".' },
  );
}
