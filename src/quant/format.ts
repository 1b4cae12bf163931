import type { WeightFormat } from "../native/types.js";

/** How a tensor's weights lie on disk and in memory. `native/backend/format.h` describes the bytes. */
export interface Format {
  name: WeightFormat;
  /** dtype of the safetensors tensor that holds it. Rows of quantized weights are opaque bytes. */
  dtype: "F32" | "F16" | "BF16" | "U8";
  /** Columns that share a scale; absent where there is no scale. */
  block?: number;
  /** Of a row of whole blocks, scales included. */
  bitsPerWeight: number;
  /** Bytes of one row of `columns` weights; `block` is ignored where there is no scale. */
  rowBytes(columns: number, block?: number): number;
}

/** Bytes of a block's float16 scale. All scales of a row follow all codes of the row. */
export const SCALE_BYTES = 2;

/** A format of plain little-endian elements. */
export function elementFormat(name: WeightFormat, dtype: Format["dtype"], bytes: number): Format {
  return { name, dtype, bitsPerWeight: bytes * 8, rowBytes: (columns) => columns * bytes };
}

/** A format of `bits`-wide codes in blocks of `block` columns, each with one float16 scale. */
export function blockFormat(name: WeightFormat, bits: number, block: number): Format {
  return {
    name,
    dtype: "U8",
    block,
    bitsPerWeight: bits + (SCALE_BYTES * 8) / block,
    rowBytes: (columns, columnsPerScale = block) =>
      Math.ceil(columns / columnsPerScale) * ((columnsPerScale * bits) / 8 + SCALE_BYTES),
  };
}
