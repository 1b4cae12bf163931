/** What `compression: "lossless"` does with each tensor, once its weights have been seen. Plain data. */
import type { RowSource } from "../checkpoint/row-source.js";
import type { AssignedTensor, Assignment } from "../models/assignment.js";
import type { ElementFormat, LosslessFormat } from "../native/types.js";
import { type CompressionSettings, formatOf } from "../quant/registry.js";
import { compressionOf } from "./requantize.js";

export interface Encoding {
  format: LosslessFormat;
  /** As in the manifest. */
  block: number;
}

/** By name in the store; other tensors stay as they are. */
export type Encodings = Readonly<Record<string, Encoding>>;

/** A tensor that an encoding may suit. */
export interface Candidate {
  name: string;
  /** For messages. */
  file: string;
  source: RowSource;
  /** Of the source's rows. */
  sourceFormat: ElementFormat;
  rows: number;
  columns: number;
}

/** A matrix that shrinks by less stays as it is: decoding costs more than reading. */
const LARGEST_RATIO = 0.9;

/** Of each file of the store. bfloat16 is often kept as float32; no encoding suits what else there is. */
export function candidatesOf({ layers }: Assignment, settings: CompressionSettings): Candidate[][] {
  return layers.map(({ stages }) =>
    stages.flatMap(({ tensors }) => tensors.flatMap((given) => candidateOf(given, settings))),
  );
}

function candidateOf(tensor: AssignedTensor, settings: CompressionSettings): Candidate[] {
  const { name, file, role, shape, source, sourceFormat } = tensor;
  const [rows = 0, columns] = shape;
  const isWanted = role !== "vector" && compressionOf(role, settings) === "lossless";
  const isCandidate = sourceFormat === "bf16" || sourceFormat === "f32";
  if (!isWanted || columns === undefined || !isCandidate) return [];
  return [{ name, file, source, sourceFormat, rows, columns }];
}

export function candidateBytes({ sourceFormat, rows, columns }: Candidate): number {
  return rows * formatOf(sourceFormat).rowBytes(columns);
}

/** Of rows with up to `escapes` escapes; undefined if they are not worth it. */
export function windowEncoding(columns: number, escapes: number): Encoding | undefined {
  const block = Math.max(escapes, 1);
  const format = formatOf("bf16_window");
  const plain = formatOf("bf16").rowBytes(columns);
  const fits = format.blockFits(columns, block) && format.rowBytes(columns, block) <= LARGEST_RATIO * plain;
  return fits ? { format: "bf16_window", block } : undefined;
}
