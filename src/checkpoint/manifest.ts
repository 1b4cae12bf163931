/** Types of `layerstream.json`, the manifest of a layer store. `layer-store.ts` reads and checks it. */
import type { WeightFormat } from "../native/types.js";
import type { Compression } from "../quant/registry.js";

export const MANIFEST_FILE = "layerstream.json";
export const MANIFEST_VERSION = 1;
/** Stages, headers and large tensors start on multiples of this. */
export const PAGE_BYTES = 4096;
/** A file's checksums cover blocks of this many bytes. */
export const CHECKSUM_BLOCK_BYTES = 1 << 20;

/** A compressed block holds at most so many bytes, or one row: readers decode whole blocks. */
export const LZ4_BLOCK_BYTES_MAX = 4 << 20;

export type TensorFormat = WeightFormat;
export type { Compression };

export interface StoredTensor {
  /** Hugging Face name. */
  name: string;
  format: TensorFormat;
  /** Logical shape: [rows, columns] or [length]. */
  shape: number[];
  /** Byte offset in the file. */
  offset: number;
  /** In the file. */
  byteLength: number;
  /** Bytes of one row; for vectors, byteLength. See native/backend/format.h for what a row holds. */
  rowBytes: number;
  /** Columns that share a scale, for all but element formats. */
  block?: number;
  /**
   * The rows are compressed, `rows` at a time, into LZ4 blocks, one after the other, of so many bytes each. A block of as
   * many bytes as its rows have holds them as they are. All but the last stand for whole pages. In the safetensors header it is the tensor `<name>.lz4_blocks`. Matrices that are read row by row are never compressed.
   */
  lz4?: { rows: number; bytes: number[] };
  /**
   * Byte offset of `columns` uint32: stored column c multiplies input column columnOrder[c]. In the safetensors header it
   * is the tensor `<name>.column_order`. Absent: columns are in their own order.
   */
  columnOrder?: number;
}

export interface StoredStage {
  name: "embed" | "attention" | "mlp" | "moe" | "expert" | "head";
  /** Decoder layer, or -1. */
  layer: number;
  /** Of `expert` stages. */
  expert?: number;
  /** Page-aligned byte offset and length in the file. */
  offset: number;
  length: number;
  tensors: StoredTensor[];
}

export interface StoredFile {
  name: string;
  size: number;
  /** CRC-32C of each block of CHECKSUM_BLOCK_BYTES, 8 hex digits each, concatenated. */
  checksums: string;
  /** In execution order; empty for copied files (config, tokenizer). */
  stages: StoredStage[];
}

export interface SourceFile {
  name: string;
  size: number;
  /** Of shards; 0 where the name of a Hugging Face cache blob identifies the content instead, and for small files. */
  modifiedMs: number;
  /** SHA-256 of the shard's header and of a few samples of the data, or of the whole file where it is no shard. */
  headerHash: string;
}

export interface Manifest {
  formatVersion: number;
  generator: string;
  source: {
    path: string;
    /** Hash over `files`; what a store is keyed by. */
    identity: string;
    files: SourceFile[];
  };
  compression: Compression;
  embeddingCompression: Compression;
  headCompression: Compression;
  /** config.json of the checkpoint. */
  config: Record<string, unknown>;
  files: StoredFile[];
  /** Names in the checkpoint that are stored under another name (tied heads). */
  tied: Record<string, string>;
  /** Names in the checkpoint that no plan uses and that were not stored. */
  dropped: string[];
  /** CRC-32C of the manifest's JSON text with this field set to the empty string. */
  checksum: string;
}

/** The tensor that holds the LZ4 blocks of matrix `name`. */
export function lz4BlocksName(name: string): string {
  return `${name}.lz4_blocks`;
}

/** The tensor that says which input column each stored column of matrix `name` multiplies. */
export function columnOrderName(name: string): string {
  return `${name}.column_order`;
}
