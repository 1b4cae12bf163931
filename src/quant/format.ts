import type { WeightFormat } from "../native/types.js";

/** How a tensor's weights lie on disk and in memory. `native/backend/format.h` describes the bytes. */
export interface Format {
  name: WeightFormat;
  /** dtype of the safetensors tensor that holds it. Rows of quantized weights are opaque bytes. */
  dtype: "F32" | "F16" | "BF16" | "U8";
  /**
   * Columns that share a scale, where a tensor does not say otherwise, and bytes of escapes in bf16_window; absent in
   * formats of plain elements.
   */
  block?: number;
  /** Of a row of whole blocks of `block` columns, scales included. */
  bitsPerWeight: number;
  /** Whether rows of `columns` weights can have blocks of `block` columns; undefined: no scales. */
  blockFits(columns: number, block: number | undefined): boolean;
  /** Bytes of one row of `columns` weights; `block` is ignored where there is no scale. */
  rowBytes(columns: number, block?: number): number;
}

/** What `block` of a scaled format may be; `columns` are those of the matrix. */
export type BlockRule =
  /** A power of two from 32 on. */
  | "powerOfTwo"
  /** A multiple of 16, or at least `columns`: one scale a row. */
  | "multiple"
  /** The format's number. */
  | "fixed"
  /** The format's number, and `columns` is a multiple of it. */
  | "whole";

interface BlockLayout {
  /** Of a code. */
  bits: number;
  /** Bytes of the scale, and of the zero or minimum if there is one, of `block` columns. */
  groupBytes: number;
  /** The usual number of columns that share a scale, or the only one. */
  block: number;
  rule: BlockRule;
  /** Codes are padded to a multiple of this many columns. */
  padding: number | "block";
}

/** Bytes of the float16 scale of a block of 8bit and 4bit. All scales of a row follow all codes of the row. */
export const SCALE_BYTES = 2;

const MAX_BLOCK = 2 ** 31 - 1;

/** A format of plain little-endian elements. */
export function elementFormat(name: WeightFormat, dtype: Format["dtype"], bytes: number): Format {
  return {
    name,
    dtype,
    bitsPerWeight: bytes * 8,
    blockFits: (_, block) => block === undefined,
    rowBytes: (columns) => columns * bytes,
  };
}

/** A format of `bits`-wide codes with a scale a block. */
export function blockFormat(name: WeightFormat, layout: BlockLayout): Format {
  const { bits, groupBytes, block: usual, rule, padding } = layout;
  return {
    name,
    dtype: "U8",
    block: usual,
    bitsPerWeight: bits + (groupBytes * 8) / usual,
    blockFits: (columns, block) => block !== undefined && block <= MAX_BLOCK && fits(rule, usual, columns, block),
    rowBytes: (columns, block = usual) => {
      const unit = padding === "block" ? block : padding;
      return (Math.ceil(columns / unit) * unit * bits) / 8 + Math.ceil(columns / block) * groupBytes;
    },
  };
}

/** Integer codes with a float16 scale and a uint8 zero a block: w = (code - zero) * scale. */
export function integerFormat(name: WeightFormat, bits: number): Format {
  return blockFormat(name, { bits, groupBytes: 3, block: 128, rule: "multiple", padding: 64 });
}

/** ggml's blocks: codes, scales and minimums of `block` columns side by side. */
export function ggmlFormat(name: WeightFormat, bits: number, groupBytes: number, block: number): Format {
  return blockFormat(name, { bits, groupBytes, block, rule: "whole", padding: 1 });
}

function fits(rule: BlockRule, usual: number, columns: number, block: number): boolean {
  switch (rule) {
    case "powerOfTwo":
      return block >= 32 && (block & (block - 1)) === 0;
    case "multiple":
      return block > 0 && (block % 16 === 0 || block >= columns);
    case "fixed":
      return block === usual;
    case "whole":
      return block === usual && columns % block === 0;
  }
}
