/**
 * Where the rows of a stored tensor come from. Plain data: `models/assignment.ts` describes, and decompose reads, in
 * another thread.
 */
import type { WeightFormat } from "../native/types.js";

/** Mixed radix: row r has one digit a dimension, the last one fastest, and is the sum of digit * stride away from row 0. */
export type RowDimensions = readonly (readonly [count: number, stride: number])[];

/** Elements at byte offset + row's place + column * columnStride of a file. */
export interface StridedSource {
  kind: "strided";
  /** In the checkpoint, for messages. */
  name: string;
  file: string;
  /** Of row 0, column 0. */
  offset: number;
  elementBytes: number;
  /** Strides in bytes, not negative. */
  rowDims: RowDimensions;
  columns: number;
  /** In bytes, not negative. */
  columnStride: number;
}

/** One tensor of those that a quantized matrix is made of. Row-major. */
export interface PackedPart {
  name: string;
  file: string;
  offset: number;
  byteLength: number;
  /** As safetensors has it. */
  dtype: string;
  shape: readonly number[];
}

/** The part of a source matrix that a stored tensor takes, in this order: an expert's matrix, then rows of it. */
export interface SourceView {
  /** Index in the leading axis. */
  expert?: number;
  rows?: { offset: number; dims: RowDimensions };
  /** Groups of `stride` rows, of which the first `rows` are taken and transposed. */
  transposedGroups?: { stride: number; rows: number };
}

/** Rows in `format`, repacked or dequantized from a checkpoint's own packing. */
export interface PackedSource {
  kind: "packed";
  /** In the checkpoint, for messages. */
  name: string;
  /** Names the reader. */
  method: string;
  parts: Readonly<Record<string, PackedPart>>;
  /** Of the whole matrix, without experts. */
  rows: number;
  columns: number;
  /** Numbers that the method needs besides: bits, group size and the like. */
  parameters: Readonly<Record<string, number>>;
  /** What rows come in. */
  format: WeightFormat;
  block?: number;
  view: SourceView;
}

/** One row of uint32: the columns of a matrix sorted by group, those of one group in their own order. */
export interface ColumnOrderSource {
  kind: "columnOrder";
  /** I32 [columns], the group of each. */
  groupIndex: PackedPart;
  groups: number;
}

/** A float32 vector: 1 / max(||row||, 1e-12) of each row of a matrix. */
export interface InverseRowNormSource {
  kind: "inverseRowNorm";
  of: RowSource;
  rows: number;
  columns: number;
  /** Of the matrix. */
  format: WeightFormat;
  block?: number;
}

export type RowSource = StridedSource | PackedSource | ColumnOrderSource | InverseRowNormSource;

/** The rows of a strided source. */
export function countRows(dims: RowDimensions): number {
  return dims.reduce((product, [count]) => product * count, 1);
}
