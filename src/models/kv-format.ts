/** How keys and values lie in the KV cache: `native/backend/kv_format.h`, in numbers of bytes. */
import type { KvFormat } from "../native/types.js";

export const KV_FORMATS = ["f32", "bf16", "8bit"] as const satisfies readonly KvFormat[];

const PAGE_BYTES = 4096;
const ELEMENT_BYTES: Readonly<Record<KvFormat, number>> = { f32: 4, bf16: 2, "8bit": 1 };
/** One float32 a vector. */
const SCALE_BYTES = 4;

/** What the cache holds of one token in one layer: a key of `keyDim` for each head, and a value of `valueDim`. */
export interface KvShape {
  heads: number;
  keyDim: number;
  /** 0: values are the first part of the keys. */
  valueDim: number;
}

function blockBytes(format: KvFormat, positions: number, dim: number): number {
  if (dim === 0 || format !== "8bit") return positions * dim * ELEMENT_BYTES[format];
  return Math.ceil((positions * dim) / SCALE_BYTES) * SCALE_BYTES + positions * SCALE_BYTES;
}

/** Keys and values of one token in one layer, bytes. */
export function kvVectorBytes(format: KvFormat, { heads, keyDim, valueDim }: KvShape): number {
  return heads * (blockBytes(format, 1, keyDim) + blockBytes(format, 1, valueDim));
}

/** A page of `positions` positions of one layer: keys and values of all heads, padded to whole pages of memory. */
export function kvPageBytes(format: KvFormat, { heads, keyDim, valueDim }: KvShape, positions: number): number {
  const bytes = heads * (blockBytes(format, positions, keyDim) + blockBytes(format, positions, valueDim));
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
