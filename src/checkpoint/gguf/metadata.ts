/** The key-value pairs at the start of a GGUF file, and typed access to them. */
import { isUtf8 } from "node:buffer";
import { type ByteCursor, ggufInvalid } from "./byte-cursor.js";

export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

/** 64-bit integers are bigint only where a number would not be exact; elements of arrays of booleans are 0 or 1. */
export type GgufValue = number | bigint | boolean | string | readonly string[] | GgufNumbers;

interface NumberType {
  bytes: number;
  read(bytes: Buffer): number | bigint;
  array(buffer: ArrayBuffer): GgufNumbers;
}

const MAX_KEYS = 65_536;
const MAX_KEY_BYTES = 65_535;
const MAX_STRING_BYTES = 1 << 24;
/** Of an array: more than any vocabulary or list of merges has. */
const MAX_ELEMENTS = 1 << 24;
const UINT8 = 0;
const BOOLEAN = 7;
const STRING = 8;
const ARRAY = 9;

const NUMBER_TYPES: ReadonlyMap<number, NumberType> = new Map<number, NumberType>([
  [UINT8, { bytes: 1, read: (bytes) => bytes.readUInt8(), array: (buffer) => new Uint8Array(buffer) }],
  [1, { bytes: 1, read: (bytes) => bytes.readInt8(), array: (buffer) => new Int8Array(buffer) }],
  [2, { bytes: 2, read: (bytes) => bytes.readUInt16LE(), array: (buffer) => new Uint16Array(buffer) }],
  [3, { bytes: 2, read: (bytes) => bytes.readInt16LE(), array: (buffer) => new Int16Array(buffer) }],
  [4, { bytes: 4, read: (bytes) => bytes.readUInt32LE(), array: (buffer) => new Uint32Array(buffer) }],
  [5, { bytes: 4, read: (bytes) => bytes.readInt32LE(), array: (buffer) => new Int32Array(buffer) }],
  [6, { bytes: 4, read: (bytes) => bytes.readFloatLE(), array: (buffer) => new Float32Array(buffer) }],
  [BOOLEAN, { bytes: 1, read: (bytes) => bytes.readUInt8(), array: (buffer) => new Uint8Array(buffer) }],
  [10, { bytes: 8, read: (bytes) => bytes.readBigUInt64LE(), array: (buffer) => new BigUint64Array(buffer) }],
  [11, { bytes: 8, read: (bytes) => bytes.readBigInt64LE(), array: (buffer) => new BigInt64Array(buffer) }],
  [12, { bytes: 8, read: (bytes) => bytes.readDoubleLE(), array: (buffer) => new Float64Array(buffer) }],
]);

/**
 * Reads `count` pairs.
 * @throws GGUF_INVALID for unknown types, nested arrays, keys that come twice, and counts or lengths that the file
 * cannot hold
 */
export async function readMetadata(cursor: ByteCursor, count: bigint): Promise<Map<string, GgufValue>> {
  if (count > BigInt(MAX_KEYS)) {
    throw ggufInvalid(cursor.file, `declares ${count} metadata keys; the limit is ${MAX_KEYS}`, { offset: 16 });
  }
  const values = new Map<string, GgufValue>();
  for (let index = 0; index < count; index++) {
    const { offset } = cursor;
    const key = await readString(cursor, "a metadata key", MAX_KEY_BYTES);
    if (values.has(key)) {
      throw ggufInvalid(cursor.file, `has the metadata key ${quote(key)} twice`, { offset });
    }
    await cursor.fill(4, quote(key));
    values.set(key, await readValue(cursor, cursor.take(4).readUInt32LE(), key));
  }
  return values;
}

async function readValue(cursor: ByteCursor, type: number, key: string): Promise<GgufValue> {
  const what = `the value of ${quote(key)}`;
  if (type === STRING) return readString(cursor, what, MAX_STRING_BYTES);
  if (type === ARRAY) return readArray(cursor, what);
  const { offset } = cursor;
  const { bytes, read } = numberType(cursor, type, what);
  await cursor.fill(bytes, what);
  const value = exactNumber(read(cursor.take(bytes)));
  if (type !== BOOLEAN) return value;
  if (value !== 0 && value !== 1)
    throw ggufInvalid(cursor.file, `has a boolean in ${what} that is ${value}`, { offset });
  return value === 1;
}

async function readArray(cursor: ByteCursor, what: string): Promise<readonly string[] | GgufNumbers> {
  await cursor.fill(12, what);
  const { offset } = cursor;
  const type = cursor.take(4).readUInt32LE();
  const count = cursor.take(8).readBigUInt64LE();
  if (type === ARRAY)
    throw ggufInvalid(cursor.file, `has an array of arrays in ${what}, which no model uses`, { offset });
  const elementBytes = type === STRING ? 8 : numberType(cursor, type, what).bytes;
  if (count > BigInt(MAX_ELEMENTS) || count * BigInt(elementBytes) > BigInt(cursor.remaining)) {
    throw ggufInvalid(
      cursor.file,
      `declares ${count} elements in ${what}, where at most ${MAX_ELEMENTS} may be and ${cursor.remaining} bytes follow`,
      { offset },
    );
  }
  if (type === STRING) return readStrings(cursor, Number(count), what);
  const byteLength = Number(count) * elementBytes;
  await cursor.fill(byteLength, what);
  const copy = new Uint8Array(cursor.take(byteLength));
  return numberType(cursor, type, what).array(copy.buffer);
}

function numberType(cursor: ByteCursor, type: number, what: string): NumberType {
  const known = NUMBER_TYPES.get(type);
  if (known) return known;
  throw ggufInvalid(cursor.file, `has the unknown metadata type ${type} in ${what}`, { offset: cursor.offset });
}

async function readStrings(cursor: ByteCursor, count: number, what: string): Promise<string[]> {
  const strings: string[] = [];
  for (let index = 0; index < count; index++) {
    // Without the wait where there is nothing to wait for: a vocabulary has hundreds of thousands.
    if (!cursor.holds(8)) await cursor.fill(8, what);
    const length = takeLength(cursor, what, MAX_STRING_BYTES);
    if (!cursor.holds(length)) await cursor.fill(length, what);
    strings.push(takeText(cursor, length, what));
  }
  return strings;
}

/** @throws GGUF_INVALID if it is longer than `maxBytes` or the file, or not UTF-8 */
export async function readString(cursor: ByteCursor, what: string, maxBytes: number): Promise<string> {
  await cursor.fill(8, what);
  const length = takeLength(cursor, what, maxBytes);
  await cursor.fill(length, what);
  return takeText(cursor, length, what);
}

function takeLength(cursor: ByteCursor, what: string, maxBytes: number): number {
  const { offset } = cursor;
  const length = cursor.take(8).readBigUInt64LE();
  if (length <= BigInt(maxBytes)) return Number(length);
  throw ggufInvalid(cursor.file, `declares a string of ${length} bytes in ${what}; the limit is ${maxBytes}`, {
    offset,
  });
}

function takeText(cursor: ByteCursor, length: number, what: string): string {
  const { offset } = cursor;
  const bytes = cursor.take(length);
  const text = bytes.toString("utf8");
  if (text.includes("\ufffd") && !isUtf8(bytes)) {
    throw ggufInvalid(cursor.file, `has a string in ${what} that is not valid UTF-8`, { offset });
  }
  return text;
}

function exactNumber(value: number | bigint): number | bigint {
  return typeof value === "bigint" && BigInt.asIntN(54, value) === value ? Number(value) : value;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}

/** Typed access to metadata; every method raises GGUF_INVALID with the file, the key and the value. */
export class GgufMetadata {
  constructor(
    readonly file: string,
    private readonly values: ReadonlyMap<string, GgufValue>,
  ) {}

  has(key: string): boolean {
    return this.values.has(key);
  }

  string(key: string): string | undefined {
    const value = this.values.get(key);
    return value === undefined || typeof value === "string" ? value : this.#refuse(key, "a string");
  }

  boolean(key: string): boolean | undefined {
    const value = this.values.get(key);
    return value === undefined || typeof value === "boolean" ? value : this.#refuse(key, "true or false");
  }

  number(key: string): number | undefined {
    const value = this.values.get(key);
    if (value === undefined) return undefined;
    return typeof value === "number" && Number.isFinite(value) ? value : this.#refuse(key, "a finite number");
  }

  /** A whole number, not negative. */
  count(key: string): number | undefined {
    const value = this.number(key);
    if (value === undefined) return undefined;
    return Number.isSafeInteger(value) && value >= 0 ? value : this.#refuse(key, "a whole number, not negative");
  }

  /** A whole number, or a list with one for each layer; booleans count as 0 and 1. Undefined if absent. */
  counts(key: string): number | readonly number[] | undefined {
    if (typeof this.values.get(key) === "number") return this.count(key);
    const list = this.numbers(key);
    if (list === undefined) return undefined;
    const counts = Array.from(list, Number);
    return counts.every((value) => Number.isSafeInteger(value) && value >= 0)
      ? counts
      : this.#refuse(key, "whole numbers, not negative");
  }

  strings(key: string): readonly string[] | undefined {
    const value = this.values.get(key);
    if (value === undefined) return undefined;
    return Array.isArray(value) ? (value as readonly string[]) : this.#refuse(key, "a list of strings");
  }

  numbers(key: string): GgufNumbers | undefined {
    const value = this.values.get(key);
    return value === undefined || ArrayBuffer.isView(value) ? value : this.#refuse(key, "a list of numbers");
  }

  /** @throws GGUF_INVALID saying that the key is missing */
  required<T>(key: string, value: T | undefined): T {
    if (value !== undefined) return value;
    throw ggufInvalid(this.file, `has no metadata key ${quote(key)}`);
  }

  #refuse(key: string, expected: string): never {
    const value = this.values.get(key);
    const shown = typeof value === "string" ? quote(value) : typeof value === "object" ? "a list" : String(value);
    throw ggufInvalid(this.file, `has ${shown} as ${quote(key)}, which must be ${expected}`);
  }
}
