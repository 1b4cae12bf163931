/** The safetensors format (https://github.com/huggingface/safetensors): strict reading of headers, and writing them. */
import { createHash } from "node:crypto";
import { LayerstreamError } from "../errors.js";
import { type ByteSource, withFile } from "./byte-source.js";
import { isRecord, JsonError, parseStrictJson } from "./strict-json.js";

/** Bits of one element. */
export const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  I64: 64,
  U64: 64,
  F64: 64,
  C64: 64,
};

/** The limit of the reference implementation. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_HEADER_DEPTH = 4;
const MAX_RANK = 64;
const METADATA_KEY = "__metadata__";
const REMEDY = "The file is damaged or incomplete: download or copy it again.";

export interface SafetensorsTensor {
  name: string;
  /** A key of DTYPE_BITS. */
  dtype: string;
  shape: number[];
  /** From the start of the file. */
  offset: number;
  byteLength: number;
}

export interface SafetensorsHeader {
  file: string;
  size: number;
  /** Where tensor data starts. */
  dataOffset: number;
  /** SHA-256 of the header's bytes, in hex. */
  hash: string;
  /** By name, in the order of the data. */
  tensors: Map<string, SafetensorsTensor>;
  metadata: Record<string, string>;
}

/**
 * Reads and checks the header of a safetensors file; no tensor data is read.
 * @throws SAFETENSORS_INVALID naming file, tensor and offset for anything that the format does not allow.
 */
export function readSafetensorsHeader(file: string): Promise<SafetensorsHeader> {
  return withFile(file, readSafetensorsFrom);
}

/** As `readSafetensorsHeader`, of bytes from anywhere. */
export async function readSafetensorsFrom(source: ByteSource): Promise<SafetensorsHeader> {
  return parseHeader(await readHeaderBytes(source), source.file, source.size);
}

async function readHeaderBytes({ file, size, read }: ByteSource): Promise<Uint8Array> {
  if (size < 8) throw invalid(file, `has only ${size} bytes, too few for a safetensors header`, { offset: 0 });
  const length = (await read(0, 8)).readBigUInt64LE();
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw invalid(file, `declares a header of ${length} bytes; the limit is ${MAX_HEADER_BYTES}`, { offset: 0 });
  }
  if (length > BigInt(size - 8)) {
    throw invalid(file, `declares a header of ${length} bytes, but only ${size - 8} bytes follow`, { offset: 0 });
  }
  return read(8, Number(length));
}

function parseHeader(bytes: Uint8Array, file: string, size: number): SafetensorsHeader {
  const entries = headerEntries(bytes, file);
  const dataOffset = 8 + bytes.length;
  const tensors: SafetensorsTensor[] = [];
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(entries)) {
    if (name === METADATA_KEY) metadata = parseMetadata(value, file);
    else tensors.push(parseTensor(name, value, file, dataOffset));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkCoverage(tensors, file, dataOffset, size);
  return {
    file,
    size,
    dataOffset,
    hash: createHash("sha256").update(bytes).digest("hex"),
    tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])),
    metadata,
  };
}

function headerEntries(bytes: Uint8Array, file: string): Record<string, unknown> {
  try {
    const value = parseStrictJson(bytes, MAX_HEADER_DEPTH);
    if (isRecord(value)) return value;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw invalid(file, `has a header that ${error.message}`, { offset: 8 });
  }
  throw invalid(file, "has a header that is not a JSON object", { offset: 8 });
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (!isRecord(value) || Object.values(value).some((text) => typeof text !== "string")) {
    throw invalid(file, `has a ${METADATA_KEY} that is not a map of strings`, { offset: 8 });
  }
  return value as Record<string, string>;
}

function parseTensor(name: string, value: unknown, file: string, dataOffset: number): SafetensorsTensor {
  const problem = (what: string, offset = 8) => invalid(file, `tensor "${name}" ${what}`, { tensor: name, offset });
  if (!isRecord(value)) throw problem("is not described by a JSON object");
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw problem(`has the unknown dtype ${JSON.stringify(dtype)}`);
  }
  if (!Array.isArray(shape) || shape.length > MAX_RANK || !shape.every(isSize)) {
    throw problem("has a shape that is not a short list of non-negative integers below 2^53");
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw problem("has data_offsets that are not two non-negative integers below 2^53");
  }
  const [begin, end] = offsets as [number, number];
  const offset = dataOffset + begin;
  if (begin > end) throw problem(`ends at ${end}, before it begins at ${begin}`, offset);
  const bits = (shape as number[]).reduce((product, size) => product * BigInt(size), BigInt(DTYPE_BITS[dtype] ?? 0));
  if (bits !== BigInt(end - begin) * 8n) {
    const need = bits % 8n === 0n ? `${bits / 8n} bytes` : `${bits} bits, not whole bytes`;
    throw problem(`is ${dtype} [${shape.join(", ")}], which takes ${need}, but has ${end - begin} bytes`, offset);
  }
  return { name, dtype, shape: shape as number[], offset, byteLength: end - begin };
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Tensors, in order of offset, must cover the data without overlap, hole or rest. */
function checkCoverage(tensors: readonly SafetensorsTensor[], file: string, dataOffset: number, size: number): void {
  let position = dataOffset;
  for (const { name, offset, byteLength } of tensors) {
    const details = { tensor: name, offset };
    if (offset < position) {
      throw invalid(file, `tensor "${name}" at byte ${offset} overlaps the one that ends at byte ${position}`, details);
    }
    if (offset > position) {
      throw invalid(file, `has a hole: no tensor covers bytes ${position} to ${offset}, before "${name}"`, details);
    }
    position = offset + byteLength;
    if (position > size) {
      throw invalid(file, `is truncated: tensor "${name}" ends at byte ${position}, the file at ${size}`, details);
    }
  }
  if (position < size) {
    throw invalid(file, `has ${size - position} bytes after the last tensor, which ends at byte ${position}`, {
      offset: position,
    });
  }
}

function invalid(file: string, what: string, details: { tensor?: string; offset: number }): LayerstreamError {
  return new LayerstreamError("SAFETENSORS_INVALID", `${file} ${what}.`, { ...details, file, remedy: REMEDY });
}

/**
 * The bytes before the data of a new safetensors file: length, JSON, and spaces up to a multiple of `alignment`.
 * `tensors` are in order, without holes; their offsets count from the start of the data.
 */
export function encodeSafetensorsHeader(
  tensors: readonly SafetensorsTensor[],
  alignment: number,
  metadata?: Readonly<Record<string, string>>,
): Buffer {
  const entries: [string, unknown][] = tensors.map(({ name, dtype, shape, offset, byteLength }) => [
    name,
    { dtype, shape, data_offsets: [offset, offset + byteLength] },
  ]);
  if (metadata) entries.unshift([METADATA_KEY, metadata]);
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const total = Math.ceil((8 + json.length) / alignment) * alignment;
  const header = Buffer.alloc(total, " ");
  header.writeBigUInt64LE(BigInt(total - 8), 0);
  json.copy(header, 8);
  return header;
}
