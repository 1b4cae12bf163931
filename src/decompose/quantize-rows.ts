import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { ElementFormat } from "../native/types.js";
import { isElementFormat } from "../quant/registry.js";
import type { BlockWriter } from "./block-writer.js";
import { appendConverted } from "./converted-rows.js";
import type { QuantizeSegment } from "./layout.js";
import { openRows } from "./open-rows.js";
import type { Workspace } from "./row-source.js";

/** Reads a matrix piece by piece, and appends it quantized. */
export function quantizeRows(segment: QuantizeSegment, workspace: Workspace, writer: BlockWriter): void {
  const { columns, format, block, source } = segment;
  const rowBytes = native().rowBytes(format, columns, block);
  appendConverted(openRows(source, workspace), rowBytes, writer, (bytes, first, count, output) =>
    quantize(segment, bytes, first, count, output),
  );
}

function quantize(segment: QuantizeSegment, rows: Uint8Array, first: number, count: number, output: Uint8Array): void {
  const { columns, format, block, name, file } = segment;
  const { sourceFormat, elements } = asElements(segment, rows, count);
  if (native().quantize(sourceFormat, elements, count, columns, format, block, output)) return;
  const last = first + count - 1;
  throw new LayerstreamError(
    "QUANTIZATION_FAILED",
    `${file}: tensor "${name}" has a value in rows ${first} to ${last} that is not finite or too large for ${format}.`,
    { file, tensor: name, remedy: 'Check the checkpoint, or use compression "none".' },
  );
}

/** The rows themselves, or what their codes stand for. */
function asElements(
  { sourceFormat, sourceBlock = 1, columns }: QuantizeSegment,
  rows: Uint8Array,
  count: number,
): { sourceFormat: ElementFormat; elements: Uint8Array } {
  if (isElementFormat(sourceFormat)) return { sourceFormat, elements: rows };
  const values = new Float32Array(count * columns);
  native().dequantize(sourceFormat, rows, count, columns, sourceBlock, values);
  return { sourceFormat: "f32", elements: new Uint8Array(values.buffer) };
}
