import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { RowSource, SourceView } from "../checkpoint/row-source.js";
import type { WeightFormat } from "../native/types.js";

/** A matrix that a quantization method makes of several tensors of the checkpoint. */
export interface ClaimedMatrix {
  /** [rows, columns], after the leading axis of experts. */
  shape: readonly [rows: number, columns: number];
  /** Size of the leading axis, if there is one. */
  experts?: number;
  /** Names in the checkpoint of all tensors that it is made of. */
  parts: readonly string[];
  take(view: SourceView): ClaimedRows;
}

export interface ClaimedRows {
  source: RowSource;
  format: WeightFormat;
  block?: number;
  /** Stored column c multiplies input column columnOrder[c]. */
  columnOrder?: Uint32Array;
}

/** The matrix that the checkpoint's quantization method stores in place of tensor `name`; undefined if it stores none. */
export function claimMatrix(_checkpoint: Checkpoint, _name: string): ClaimedMatrix | undefined {
  return undefined;
}
