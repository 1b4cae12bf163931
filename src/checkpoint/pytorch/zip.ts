/**
 * The table of contents of a zip archive (PKWARE APPNOTE 6.3.10), zip64 included, whose entries are stored as they are.
 * Strict: archives that two readers could understand differently are refused.
 */
import { createHash } from "node:crypto";
import { LayerstreamError } from "../../errors.js";
import type { ByteSource } from "../byte-source.js";
import { isPlainFileName } from "../safe-path.js";

const END_SIGNATURE = 0x06054b50;
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 0xffff;
const LOCATOR_SIGNATURE = 0x07064b50;
const LOCATOR_BYTES = 20;
const END64_SIGNATURE = 0x06064b50;
const END64_BYTES = 56;
const ENTRY_SIGNATURE = 0x02014b50;
const ENTRY_BYTES = 46;
const LOCAL_SIGNATURE = 0x04034b50;
const LOCAL_BYTES = 30;
const ZIP64_EXTRA = 0x0001;
const ENCRYPTED = 1;
/** In a field that does not fit: the number is in the zip64 part. */
const FULL_16 = 0xffff;
const FULL_32 = 0xffffffff;

const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;

export interface ZipEntry {
  name: string;
  /** Of its data, from the start of the file. */
  offset: number;
  size: number;
}

export interface ZipArchive {
  entries: Map<string, ZipEntry>;
  /** SHA-256, in hex, of the table of contents, in which a CRC-32 of each entry is. */
  hash: string;
}

interface Directory {
  offset: number;
  size: number;
  count: number;
}

type ListedEntry = ZipEntry & { localOffset: number };

/** True if the first bytes of a file are those of a zip archive. */
export function isZip(start: Buffer): boolean {
  return start.length >= 4 && start.readUInt32LE(0) === LOCAL_SIGNATURE;
}

/** @throws ARCHIVE_INVALID naming file, entry and offset; IO_ERROR */
export async function readZip(source: ByteSource): Promise<ZipArchive> {
  const directory = await findDirectory(source);
  const bytes = await source.read(directory.offset, directory.size);
  const listed = parseDirectory(source, directory, bytes);
  listed.sort((a, b) => a.localOffset - b.localOffset);
  const entries = new Map<string, ZipEntry>();
  let position = 0;
  for (const entry of listed) {
    if (entry.localOffset < position) {
      throw invalid(source, `entry "${entry.name}" overlaps another`, entry.localOffset);
    }
    const offset = await findData(source, entry);
    position = offset + entry.size;
    if (position > directory.offset) {
      const what = `entry "${entry.name}" has ${entry.size} bytes, more than there are before the table of contents`;
      throw invalid(source, what, entry.localOffset);
    }
    entries.set(entry.name, { name: entry.name, offset, size: entry.size });
  }
  return { entries, hash: createHash("sha256").update(bytes).digest("hex") };
}

async function findDirectory(source: ByteSource): Promise<Directory> {
  const tailBytes = Math.min(source.size, END_BYTES + MAX_COMMENT_BYTES + LOCATOR_BYTES);
  const tailOffset = source.size - tailBytes;
  const tail = await source.read(tailOffset, tailBytes);
  const end = findEnd(tail);
  if (end === undefined) throw invalid(source, "is a zip archive without its end: it is truncated", source.size);
  const endOffset = tailOffset + end;
  const disks = [tail.readUInt16LE(end + 4), tail.readUInt16LE(end + 6)];
  const [countHere, count] = [tail.readUInt16LE(end + 8), tail.readUInt16LE(end + 10)];
  const directory = { offset: tail.readUInt32LE(end + 16), size: tail.readUInt32LE(end + 12), count };
  const locator = end - LOCATOR_BYTES;
  const isZip64 = locator >= 0 && tail.readUInt32LE(locator) === LOCATOR_SIGNATURE;
  const isSplit = disks.some((disk) => disk !== 0 && !(isZip64 && disk === FULL_16)) || countHere !== count;
  if (isSplit) throw invalid(source, "is one part of a split zip archive", endOffset);
  if (!isZip64) return checkDirectory(source, directory, endOffset);
  const end64Offset = safeNumber(source, tail.readBigUInt64LE(locator + 8), tailOffset + locator);
  return checkDirectory(source, await readEnd64(source, end64Offset, tailOffset + locator, directory), end64Offset);
}

/** Place of the end record: the one whose comment ends where the file ends. */
function findEnd(tail: Buffer): number | undefined {
  for (let at = tail.length - END_BYTES; at >= 0; at--) {
    if (tail.readUInt32LE(at) === END_SIGNATURE && at + END_BYTES + tail.readUInt16LE(at + 20) === tail.length)
      return at;
  }
  return undefined;
}

async function readEnd64(source: ByteSource, offset: number, limit: number, short: Directory): Promise<Directory> {
  if (offset + END64_BYTES > limit) throw invalid(source, "has its zip64 end record in the wrong place", offset);
  const record = await source.read(offset, END64_BYTES);
  if (record.readUInt32LE(0) !== END64_SIGNATURE) throw invalid(source, "has no zip64 end record", offset);
  const isSplit = record.readUInt32LE(16) !== 0 || record.readUInt32LE(20) !== 0;
  if (isSplit) throw invalid(source, "is one part of a split zip archive", offset);
  const directory = {
    offset: safeNumber(source, record.readBigUInt64LE(48), offset),
    size: safeNumber(source, record.readBigUInt64LE(40), offset),
    count: safeNumber(source, record.readBigUInt64LE(32), offset),
  };
  const agrees =
    (short.offset === FULL_32 || short.offset === directory.offset) &&
    (short.size === FULL_32 || short.size === directory.size) &&
    (short.count === FULL_16 || short.count === directory.count);
  if (!agrees) throw invalid(source, "has two end records that contradict each other", offset);
  return directory;
}

function checkDirectory(source: ByteSource, directory: Directory, limit: number): Directory {
  const { offset, size, count } = directory;
  if (offset + size > limit) {
    throw invalid(source, `declares a table of contents of ${size} bytes at byte ${offset}, beyond its end`, limit);
  }
  if (size > MAX_DIRECTORY_BYTES) {
    throw invalid(
      source,
      `declares a table of contents of ${size} bytes; at most ${MAX_DIRECTORY_BYTES} are read`,
      offset,
    );
  }
  if (count * ENTRY_BYTES > size) {
    throw invalid(source, `declares ${count} entries in a table of contents of ${size} bytes`, offset);
  }
  return directory;
}

function parseDirectory(source: ByteSource, directory: Directory, bytes: Buffer): ListedEntry[] {
  const entries: ListedEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let i = 0; i < directory.count; i++) {
    const offset = directory.offset + at;
    const isThere = at + ENTRY_BYTES <= bytes.length && bytes.readUInt32LE(at) === ENTRY_SIGNATURE;
    if (!isThere) throw invalid(source, `has no entry ${i} in its table of contents`, offset);
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field));
    const nameEnd = at + ENTRY_BYTES + (nameBytes as number);
    const extraEnd = nameEnd + (extraBytes as number);
    const end = extraEnd + (commentBytes as number);
    if (end > bytes.length) throw invalid(source, `has a table of contents that ends within entry ${i}`, offset);
    const name = checkName(source, bytes.subarray(at + ENTRY_BYTES, nameEnd), offset);
    if (names.has(name)) throw invalid(source, `has the entry "${name}" twice`, offset);
    names.add(name);
    const entry = parseEntry(source, name, bytes.subarray(at, end), bytes.subarray(nameEnd, extraEnd), offset);
    if (!name.endsWith("/")) entries.push(entry);
    at = end;
  }
  if (at !== bytes.length) throw invalid(source, "has a table of contents with a rest", directory.offset + at);
  return entries;
}

function checkName(source: ByteSource, bytes: Buffer, offset: number): string {
  let name: string;
  try {
    name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalid(source, "has an entry whose name is not UTF-8", offset);
  }
  const parts = name.replace(/\/$/, "").split("/");
  if (parts.every(isPlainFileName)) return name;
  throw invalid(source, `has an entry with the unsafe name ${JSON.stringify(name)}`, offset);
}

function parseEntry(source: ByteSource, name: string, record: Buffer, extra: Buffer, offset: number): ListedEntry {
  if (record.readUInt16LE(8) & ENCRYPTED) throw invalid(source, `entry "${name}" is encrypted`, offset);
  const method = record.readUInt16LE(10);
  if (method !== 0) {
    throw invalid(
      source,
      `entry "${name}" is compressed (method ${method}); PyTorch stores entries as they are`,
      offset,
    );
  }
  const short = { size: record.readUInt32LE(24), stored: record.readUInt32LE(20), local: record.readUInt32LE(42) };
  const wide = readZip64Extra(extra, Object.values(short).filter((value) => value === FULL_32).length);
  if (wide === undefined) throw invalid(source, `entry "${name}" lacks its zip64 sizes`, offset);
  const [size = 0, stored = 0, localOffset = 0] = Object.values(short).map((value) =>
    value === FULL_32 ? safeNumber(source, wide.shift() as bigint, offset) : value,
  );
  if (size !== stored) throw invalid(source, `entry "${name}" has ${size} bytes, but ${stored} are stored`, offset);
  if (localOffset + size > source.size) {
    throw invalid(
      source,
      `entry "${name}" has ${size} bytes at byte ${localOffset}, beyond the end of the file`,
      offset,
    );
  }
  return { name, size, localOffset, offset: 0 };
}

/** The first `count` 64-bit numbers of the zip64 field; undefined if they are not there. */
function readZip64Extra(extra: Buffer, count: number): bigint[] | undefined {
  if (count === 0) return [];
  for (let at = 0; at + 4 <= extra.length; ) {
    const [id, size] = [extra.readUInt16LE(at), extra.readUInt16LE(at + 2)];
    const start = at + 4;
    if (id === ZIP64_EXTRA) {
      if (size < count * 8 || start + count * 8 > extra.length) return undefined;
      return Array.from({ length: count }, (_, i) => extra.readBigUInt64LE(start + i * 8));
    }
    at = start + size;
  }
  return undefined;
}

/** Behind the local header, which must agree with the table of contents. */
async function findData(source: ByteSource, { name, localOffset }: ListedEntry): Promise<number> {
  const nameBytes = Buffer.byteLength(name);
  if (localOffset + LOCAL_BYTES + nameBytes > source.size) {
    throw invalid(source, `entry "${name}" has no header of its own`, localOffset);
  }
  const local = await source.read(localOffset, LOCAL_BYTES + nameBytes);
  const agrees =
    local.readUInt32LE(0) === LOCAL_SIGNATURE &&
    local.readUInt16LE(8) === 0 &&
    local.readUInt16LE(26) === nameBytes &&
    local.toString("utf8", LOCAL_BYTES) === name;
  if (!agrees) throw invalid(source, `entry "${name}" contradicts the header in front of its data`, localOffset);
  return localOffset + LOCAL_BYTES + nameBytes + local.readUInt16LE(28);
}

function safeNumber(source: ByteSource, value: bigint, offset: number): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw invalid(source, `declares ${value} bytes or entries`, offset);
}

function invalid({ file }: ByteSource, what: string, offset: number): LayerstreamError {
  return new LayerstreamError("ARCHIVE_INVALID", `${file} ${what} (byte ${offset}).`, {
    file,
    offset,
    remedy: "The file is damaged or no PyTorch checkpoint: download it again from a source that you trust.",
  });
}
