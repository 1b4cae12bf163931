/** What `compression: "lossless"` does with each tensor, once its weights have been seen. Plain data. */
import { LZ4_BLOCK_BYTES_MAX, PAGE_BYTES } from "../checkpoint/manifest.js";
import type { RowSource } from "../checkpoint/row-source.js";
import type { AssignedTensor, Assignment } from "../models/assignment.js";
import type { LosslessFormat, WeightFormat } from "../native/types.js";
import { type CompressionSettings, formatOf } from "../quant/registry.js";
import { compressionOf } from "./requantize.js";

/** Another format for the rows, or blocks of rows compressed as they are. All as in the manifest. */
export type Encoding = { format: LosslessFormat; block: number } | { format: "lz4"; rows: number; bytes: number[] };

/** By name in the store; other tensors stay as they are. */
export type Encodings = Readonly<Record<string, Encoding>>;

/** A tensor that an encoding may suit. */
export interface Candidate {
  name: string;
  /** For messages. */
  file: string;
  source: RowSource;
  /** Of the source's rows. */
  sourceFormat: WeightFormat;
  block?: number;
  rows: number;
  columns: number;
  /** Embeddings are not: their rows are read one by one. */
  mayHaveBlocks: boolean;
}

/** A matrix that shrinks by less stays as it is: decoding costs more than reading. */
export const LARGEST_RATIO = 0.9;
/** LZ4 finds matches in the last 64 KiB: larger blocks gain little, and are decoded as a whole. */
const LZ4_BLOCK_BYTES = 1 << 20;
const LZ4_LEAST_BYTES = 64 * 1024;

/** Of each file of the store. `embedding` names the tensor of which rows are gathered. */
export function candidatesOf({ layers }: Assignment, settings: CompressionSettings, embedding: string): Candidate[][] {
  return layers.map(({ stages }) =>
    stages.flatMap(({ tensors }) => tensors.flatMap((given) => candidateOf(given, settings, embedding))),
  );
}

function candidateOf(tensor: AssignedTensor, settings: CompressionSettings, embedding: string): Candidate[] {
  const { name, file, role, shape, source, sourceFormat, block } = tensor;
  const [rows = 0, columns] = shape;
  if (role === "vector" || columns === undefined || compressionOf(role, settings) !== "lossless") return [];
  const candidate = { name, file, source, sourceFormat, block, rows, columns, mayHaveBlocks: name !== embedding };
  return mayBeWindowed(candidate) || lz4BlockRows(candidate) !== undefined ? [candidate] : [];
}

/** bfloat16 is often kept as float32. */
export function mayBeWindowed({ sourceFormat }: Pick<Candidate, "sourceFormat">): boolean {
  return sourceFormat === "bf16" || sourceFormat === "f32";
}

export function candidateBytes({ sourceFormat, block, rows, columns }: Candidate): number {
  return rows * formatOf(sourceFormat).rowBytes(columns, block);
}

/** Rows of an LZ4 block: whole pages unless it is the only one. Undefined if the matrix cannot be compressed so. */
export function lz4BlockRows(candidate: Candidate): number | undefined {
  const { rows, mayHaveBlocks } = candidate;
  const bytes = candidateBytes(candidate);
  if (!mayHaveBlocks || bytes < LZ4_LEAST_BYTES) return undefined;
  if (bytes <= LZ4_BLOCK_BYTES) return rows;
  const rowBytes = bytes / rows;
  let step = 1;
  while ((step * rowBytes) % PAGE_BYTES !== 0) step *= 2;
  const count = Math.max(1, Math.floor(LZ4_BLOCK_BYTES / rowBytes / step)) * step;
  return count * rowBytes <= LZ4_BLOCK_BYTES_MAX ? count : undefined;
}

/** Of rows with up to `escapes` escapes; undefined if they are not worth it. */
export function windowEncoding(columns: number, escapes: number): Encoding | undefined {
  const block = Math.max(escapes, 1);
  const format = formatOf("bf16_window");
  const plain = formatOf("bf16").rowBytes(columns);
  const fits = format.blockFits(columns, block) && format.rowBytes(columns, block) <= LARGEST_RATIO * plain;
  return fits ? { format: "bf16_window", block } : undefined;
}
