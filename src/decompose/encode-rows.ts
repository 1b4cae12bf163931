import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { formatOf } from "../quant/registry.js";
import type { BlockWriter } from "./block-writer.js";
import { appendConverted } from "./converted-rows.js";
import type { EncodeSegment } from "./layout.js";
import { openRows } from "./open-rows.js";
import type { Workspace } from "./row-source.js";

/** Reads a matrix of bfloat16, or of float32 that are such in truth, and appends it in bf16_window. */
export function encodeRows(segment: EncodeSegment, workspace: Workspace, writer: BlockWriter): void {
  const { source, sourceFormat, columns, format, block } = segment;
  const rows = openRows(source, workspace);
  const narrowed = new Uint8Array(sourceFormat === "f32" ? rows.rowsAtOnce * columns * 2 : 0);
  appendConverted(rows, formatOf(format).rowBytes(columns, block), writer, (bytes, first, count, output) => {
    const given = bytes.subarray(0, count * rows.rowBytes);
    const weights = sourceFormat === "f32" ? narrowed.subarray(0, count * columns * 2) : given;
    const isNarrow = sourceFormat === "bf16" || native().narrowToBf16(given, weights);
    if (isNarrow && native().encodeWindows(weights, count, columns, block, output)) return;
    throw changed(segment, first, first + count - 1);
  });
}

function changed({ name, file }: EncodeSegment, first: number, last: number): LayerstreamError {
  return new LayerstreamError(
    "STORE_OUTDATED",
    `${file}: rows ${first} to ${last} of tensor "${name}" are not those that were surveyed.`,
    { file, tensor: name, remedy: "Run again when nothing writes to the checkpoint." },
  );
}
