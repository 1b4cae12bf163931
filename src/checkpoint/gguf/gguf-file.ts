/**
 * The GGUF format, versions 2 and 3 in little-endian order (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
 * strict reading of headers. No tensor data is read, and nothing is allocated that the file's size does not justify.
 */
import { LayerstreamError } from "../../errors.js";
import { type ByteSource, withFile } from "../byte-source.js";
import { ByteCursor, ggufInvalid } from "./byte-cursor.js";
import { type GgmlType, ggmlTypeOf, otherGgmlTypeName, SUPPORTED_GGML_TYPES } from "./ggml-types.js";
import { GgufMetadata, readMetadata, readString } from "./metadata.js";

export const MAGIC = "GGUF";
const VERSIONS: readonly number[] = [2, 3];
const DEFAULT_ALIGNMENT = 32;
const MAX_ALIGNMENT = 1 << 20;
/** Of everything before the data. Vocabularies with merges take about 20 MB. */
const MAX_HEADER_BYTES = 1 << 28;
const MAX_TENSORS = 1 << 17;
const MAX_NAME_BYTES = 255;
const MAX_RANK = 4;
const ALIGNMENT_KEY = "general.alignment";

export interface GgufTensor {
  name: string;
  type: GgmlType;
  /** The fastest first: [columns, rows] of a matrix, [columns, rows, experts] of a stack. */
  dimensions: number[];
  /** From the start of the file. */
  offset: number;
  byteLength: number;
}

export interface GgufHeader {
  file: string;
  size: number;
  version: number;
  metadata: GgufMetadata;
  /** By name, in the order of the data. */
  tensors: Map<string, GgufTensor>;
  /** Where tensor data starts. */
  dataOffset: number;
  /** SHA-256 of the bytes before the data, in hex. */
  hash: string;
}

/**
 * Reads and checks the header of a GGUF file.
 * @throws GGUF_INVALID naming file, tensor and offset for anything that the format does not allow; UNSUPPORTED_MODEL for
 * a tensor type that layerstream lacks; IO_ERROR
 */
export function readGgufHeader(file: string): Promise<GgufHeader> {
  return withFile(file, readGgufFrom);
}

/** As `readGgufHeader`, of bytes from anywhere. */
export async function readGgufFrom(source: ByteSource): Promise<GgufHeader> {
  const { file, size } = source;
  const cursor = new ByteCursor(source, MAX_HEADER_BYTES);
  await cursor.fill(24, "the header");
  const version = checkVersion(cursor);
  const tensorCount = cursor.take(8).readBigUInt64LE();
  const keyCount = cursor.take(8).readBigUInt64LE();
  if (tensorCount > BigInt(MAX_TENSORS)) {
    throw ggufInvalid(file, `declares ${tensorCount} tensors; the limit is ${MAX_TENSORS}`, { offset: 8 });
  }
  const metadata = new GgufMetadata(file, await readMetadata(cursor, keyCount));
  const alignment = readAlignment(metadata);
  const tensors: GgufTensor[] = [];
  const names = new Set<string>();
  for (let index = 0; index < Number(tensorCount); index++) tensors.push(await readTensorInfo(cursor, names));

  const dataOffset = Math.ceil(cursor.offset / alignment) * alignment;
  if (tensors.length > 0) {
    await cursor.fill(dataOffset - cursor.offset, "the padding before the tensors");
    cursor.take(dataOffset - cursor.offset);
  }
  for (const tensor of tensors) tensor.offset += dataOffset;
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkPlaces(tensors, { file, size, dataOffset, alignment });
  const map = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return { file, size, version, metadata, tensors: map, dataOffset, hash: cursor.digest() };
}

function checkVersion(cursor: ByteCursor): number {
  const { file } = cursor;
  if (cursor.take(4).toString("latin1") !== MAGIC) throw ggufInvalid(file, "does not start with GGUF", { offset: 0 });
  const bytes = cursor.take(4);
  const version = bytes.readUInt32LE();
  if (VERSIONS.includes(version)) return version;
  const what = VERSIONS.includes(bytes.readUInt32BE()) ? "is a big-endian file" : `has version ${version}`;
  throw new LayerstreamError("GGUF_INVALID", `${file} ${what}, which is not read.`, {
    file,
    offset: 4,
    remedy: `Convert it to a little-endian GGUF file of version ${VERSIONS.join(" or ")}.`,
  });
}

function readAlignment(metadata: GgufMetadata): number {
  const alignment = metadata.count(ALIGNMENT_KEY) ?? DEFAULT_ALIGNMENT;
  const isPower = alignment > 0 && alignment <= MAX_ALIGNMENT && (alignment & (alignment - 1)) === 0;
  if (isPower) return alignment;
  throw ggufInvalid(
    metadata.file,
    `has ${ALIGNMENT_KEY} ${alignment}, which is no power of two up to ${MAX_ALIGNMENT}`,
  );
}

/** The offset is still relative to the start of the data. */
async function readTensorInfo(cursor: ByteCursor, names: Set<string>): Promise<GgufTensor> {
  const { file, offset: start } = cursor;
  const name = await readString(cursor, "a tensor's name", MAX_NAME_BYTES);
  const invalid = (what: string) => ggufInvalid(file, `tensor "${name}" ${what}`, { tensor: name, offset: start });
  if (names.has(name)) throw invalid("is described twice");
  names.add(name);

  const place = `the description of tensor "${name}"`;
  await cursor.fill(4, place);
  const rank = cursor.take(4).readUInt32LE();
  if (rank < 1 || rank > MAX_RANK) throw invalid(`has ${rank} dimensions; 1 to ${MAX_RANK} are possible`);
  await cursor.fill(rank * 8 + 12, place);
  const sizes = Array.from({ length: rank }, () => cursor.take(8).readBigUInt64LE());
  const typeNumber = cursor.take(4).readUInt32LE();
  const offset = cursor.take(8).readBigUInt64LE();

  const type = ggmlTypeOf(typeNumber) ?? refuseType(file, name, typeNumber, start);
  const { blockElements, blockBytes } = type;
  const shape = `${type.name} [${sizes.join(", ")}]`;
  const columns = sizes[0] as bigint;
  if (columns % BigInt(blockElements) !== 0n)
    throw invalid(`is ${shape}, whose rows are no whole blocks of ${blockElements}`);
  const elements = sizes.reduce((product, size) => product * size, 1n);
  const byteLength = (elements / BigInt(blockElements)) * BigInt(blockBytes);
  if (elements === 0n) throw invalid(`is ${shape}, which is empty`);
  if (byteLength > BigInt(cursor.size) || offset > BigInt(cursor.size)) {
    throw invalid(`is ${shape} at byte ${offset} of the data, more than a file of ${cursor.size} bytes holds`);
  }
  return { name, type, dimensions: sizes.map(Number), offset: Number(offset), byteLength: Number(byteLength) };
}

function refuseType(file: string, tensor: string, type: number, offset: number): never {
  const known = otherGgmlTypeName(type);
  if (known === undefined)
    throw ggufInvalid(file, `tensor "${tensor}" has the unknown type ${type}`, { tensor, offset });
  throw new LayerstreamError("UNSUPPORTED_MODEL", `${file}: tensor "${tensor}" has the type ${known}.`, {
    file,
    tensor,
    offset,
    remedy: `Use a file whose tensors have only these types: ${SUPPORTED_GGML_TYPES.join(", ")}.`,
  });
}

/** Tensors, in order of offset, must be aligned, inside the file, and apart. */
function checkPlaces(
  tensors: readonly GgufTensor[],
  { file, size, dataOffset, alignment }: { file: string; size: number; dataOffset: number; alignment: number },
): void {
  let position = dataOffset;
  for (const { name, offset, byteLength } of tensors) {
    const invalid = (what: string) => ggufInvalid(file, `tensor "${name}" ${what}`, { tensor: name, offset });
    if ((offset - dataOffset) % alignment !== 0)
      throw invalid(`at byte ${offset} is not aligned to ${alignment} bytes`);
    if (offset < position) throw invalid(`at byte ${offset} overlaps the one that ends at byte ${position}`);
    position = offset + byteLength;
    if (position > size) throw invalid(`ends at byte ${position}, the file at ${size}`);
  }
}
