/** The tensors of a file that torch.save wrote: a zip archive since PyTorch 1.6, pickles and raw storages before. */
import { createHash } from "node:crypto";
import { LayerstreamError } from "../../errors.js";
import { type ByteSource, withFile } from "../byte-source.js";
import { entriesOf, unpickle } from "./pickle.js";
import { PickleTooShort } from "./pickle-reader.js";
import { isKind, type PickleValue, type Storage, type Tensor } from "./pickle-values.js";
import { isZip, readZip, type ZipArchive, type ZipEntry } from "./zip.js";

const MAX_PICKLE_BYTES = 64 * 1024 * 1024;
const FIRST_READ_BYTES = 256 * 1024;
/** The integer that begins files of the old format. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
const LEGACY_PROTOCOL = 1001;
const REMEDY = "Download the file again, or save the model as safetensors.";

export interface PyTorchTensor {
  name: string;
  /** As safetensors names it. */
  dtype: string;
  shape: number[];
  /** From the start of the file. Tensors may share bytes. */
  offset: number;
  /** From the first to the last element. */
  byteLength: number;
  /** In elements; absent: row-major. */
  strides?: readonly number[];
}

export interface PyTorchIndex {
  file: string;
  size: number;
  /** Where data may begin. */
  dataOffset: number;
  /** SHA-256, in hex, of what describes the tensors (for archives with a CRC-32 of all data). */
  hash: string;
  tensors: Map<string, PyTorchTensor>;
}

/**
 * Which tensors a file holds and where; no tensor data is read, and nothing in the file is run.
 * @throws PICKLE_REFUSED, PICKLE_INVALID, ARCHIVE_INVALID naming file and offset; IO_ERROR
 */
export function readPyTorchFile(file: string): Promise<PyTorchIndex> {
  return withFile(file, readPyTorchIndex);
}

/** As `readPyTorchFile`, of bytes from anywhere. */
export async function readPyTorchIndex(source: ByteSource): Promise<PyTorchIndex> {
  const start = await source.read(0, Math.min(source.size, 4));
  return isZip(start) ? readArchive(source) : readLegacy(source);
}

async function readArchive(source: ByteSource): Promise<PyTorchIndex> {
  const archive = await readZip(source);
  const main = findPickle(source, archive);
  const prefix = main.name.slice(0, -"data.pkl".length);
  await checkByteOrder(source, archive.entries.get(`${prefix}byteorder`));
  if (main.size > MAX_PICKLE_BYTES) {
    throw invalid(source, `has a pickle of ${main.size} bytes; at most ${MAX_PICKLE_BYTES} are read`, main.offset);
  }
  const pickle = await source.read(main.offset, main.size);
  const value = unpickleWhole(source, pickle, main.offset);
  const placeOf = ({ key, length, elementBytes }: Storage) => {
    const entry = archive.entries.get(`${prefix}data/${key}`);
    if (!entry) throw invalid(source, `has no entry "${prefix}data/${key}", which a tensor is in`, main.offset);
    if (entry.size >= length * elementBytes) return entry.offset;
    const what = `entry "${entry.name}" has ${entry.size} bytes instead of ${length} elements of ${elementBytes}`;
    throw invalid(source, what, entry.offset);
  };
  const tensors = locateTensors(source, value, placeOf);
  const hash = createHash("sha256").update(archive.hash).update(pickle).digest("hex");
  return { file: source.file, size: source.size, dataOffset: 0, hash, tensors };
}

function findPickle(source: ByteSource, { entries }: ZipArchive): ZipEntry {
  const found = [...entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const [main, other] = found;
  if (main && !other) return main;
  throw invalid(source, `is a zip archive with ${found.length} entries named data.pkl: not what torch.save writes`, 0);
}

async function checkByteOrder(source: ByteSource, entry: ZipEntry | undefined): Promise<void> {
  if (!entry) return;
  const order = entry.size <= 16 ? (await source.read(entry.offset, entry.size)).toString("latin1").trim() : "unknown";
  if (order !== "little") {
    throw invalid(source, `is in ${JSON.stringify(order)} byte order; only "little" is read`, entry.offset);
  }
}

function unpickleWhole(source: ByteSource, bytes: Buffer, base: number): PickleValue {
  try {
    return unpickle(bytes, 0, source.file, base).value;
  } catch (error) {
    if (!(error instanceof PickleTooShort)) throw error;
    throw invalid(source, "has a pickle that ends too early", base + bytes.length);
  }
}

async function readLegacy(source: ByteSource): Promise<PyTorchIndex> {
  const { value, keys, end, hash } = await readLegacyPickles(source);
  const places = await findStorages(source, value, keys, end);
  const placeOf = ({ key }: Storage) => {
    const place = places.get(key);
    if (place !== undefined) return place;
    throw invalid(source, `has no storage ${JSON.stringify(key)}, which a tensor is in`, end);
  };
  const tensors = locateTensors(source, value, placeOf);
  return { file: source.file, size: source.size, dataOffset: end, hash, tensors };
}

interface LegacyPickles {
  value: PickleValue;
  /** Of storages, in the order in which they follow. */
  keys: string[];
  /** Where the first storage begins. */
  end: number;
  hash: string;
}

/** Nothing says how long the pickles are, so more is read until they end. */
async function readLegacyPickles(source: ByteSource): Promise<LegacyPickles> {
  for (let length = FIRST_READ_BYTES; ; length *= 2) {
    const limit = Math.min(source.size, MAX_PICKLE_BYTES);
    const bytes = await source.read(0, Math.min(length, limit));
    try {
      return parseLegacyPickles(source, bytes);
    } catch (error) {
      if (!(error instanceof PickleTooShort)) throw error;
      if (bytes.length === limit) throw invalid(source, "has a pickle that ends too early or is too long", limit);
    }
  }
}

function parseLegacyPickles(source: ByteSource, bytes: Buffer): LegacyPickles {
  let at = 0;
  const next = (): PickleValue => {
    const read = unpickle(bytes, at, source.file);
    at = read.end;
    return read.value;
  };
  if (next() !== LEGACY_MAGIC) throw invalid(source, "is neither a zip archive nor a file of torch.save", 0);
  if (next() !== LEGACY_PROTOCOL) throw invalid(source, "has an unknown version of the old format", 0);
  const systemAt = at;
  const system = next();
  const isLittle = isKind(system, "dict") && entriesOf(system).get("little_endian") === true;
  if (!isLittle) throw invalid(source, "does not say that it is little-endian, which alone is read", systemAt);
  const value = next();
  const keysAt = at;
  const list = next();
  const keys = isKind(list, "list") ? list.items : undefined;
  const isListOfKeys = keys?.every((key): key is string => typeof key === "string");
  if (!keys || !isListOfKeys) throw invalid(source, "has no list of its storages", keysAt);
  const hash = createHash("sha256").update(bytes.subarray(0, at)).digest("hex");
  return { value, keys: keys as string[], end: at, hash };
}

/** Each storage is its number of elements (64 bits), then its data. */
async function findStorages(
  source: ByteSource,
  value: PickleValue,
  keys: readonly string[],
  start: number,
): Promise<Map<string, number>> {
  const lengths = new Map<string, Storage>();
  for (const { storage } of tensorsOf(source, value).values()) {
    const { key, length, elementBytes } = storage;
    const other = lengths.get(key);
    if (other && (other.length !== length || other.elementBytes !== elementBytes)) {
      throw invalid(source, `gives storage ${JSON.stringify(key)} two sizes`, start);
    }
    lengths.set(key, storage);
  }
  const places = new Map<string, number>();
  let at = start;
  for (const key of keys) {
    const storage = lengths.get(key);
    if (!storage) throw invalid(source, `has a storage ${JSON.stringify(key)} that no tensor is in`, at);
    if (places.has(key)) throw invalid(source, `lists the storage ${JSON.stringify(key)} twice`, at);
    const { length, elementBytes } = storage;
    const end = at + 8 + length * elementBytes;
    if (end > source.size) {
      throw invalid(
        source,
        `is truncated: storage ${JSON.stringify(key)} ends at byte ${end}, the file at ${source.size}`,
        at,
      );
    }
    const stored = (await source.read(at, 8)).readBigUInt64LE(0);
    if (stored !== BigInt(length)) {
      throw invalid(source, `storage ${JSON.stringify(key)} has ${stored} elements instead of ${length}`, at);
    }
    places.set(key, at + 8);
    at = end;
  }
  return places;
}

function locateTensors(
  source: ByteSource,
  value: PickleValue,
  placeOf: (storage: Storage) => number,
): Map<string, PyTorchTensor> {
  const tensors = new Map<string, PyTorchTensor>();
  for (const [name, { storage, dtype, shape, strides, offset, byteLength }] of tensorsOf(source, value)) {
    const place = placeOf(storage) + offset;
    tensors.set(name, { name, dtype, shape, offset: place, byteLength, ...(strides ? { strides } : {}) });
  }
  return tensors;
}

/** Of a state dictionary. Values that are no tensors are left out, unless tensors might hide in them. */
function tensorsOf(source: ByteSource, value: PickleValue): Map<string, Tensor> {
  if (!isKind(value, "dict")) throw invalid(source, "holds no dictionary of tensors", 0);
  const tensors = new Map<string, Tensor>();
  for (const [key, entry] of entriesOf(value)) {
    if (isKind(entry, "tensor") && typeof key === "string") tensors.set(key, entry);
    else if (typeof entry === "object" && entry !== null) {
      throw invalid(
        source,
        `has something else than a tensor at ${JSON.stringify(String(key))}: not a state dictionary`,
        0,
      );
    }
  }
  return tensors;
}

function invalid({ file }: ByteSource, what: string, offset: number): LayerstreamError {
  return new LayerstreamError("PICKLE_INVALID", `${file} ${what}.`, { file, offset, remedy: REMEDY });
}
