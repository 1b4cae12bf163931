/** A GGUF file, or a set of them, as a checkpoint: Hugging Face names, a config, a tokenizer. */
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { LayerstreamError } from "../../errors.js";
import { withFile } from "../byte-source.js";
import { errnoOf, ioError } from "../file-io.js";
import { findFile, type SafeFile } from "../safe-path.js";
import { ggufInvalid } from "./byte-cursor.js";
import { ggufModel } from "./config.js";
import { type GgufHeader, type GgufTensor, MAGIC, readGgufHeader } from "./gguf-file.js";
import { type MappedTensor, mapTensors, ROPE_FACTORS } from "./tensor-names.js";
import { type GgufVocabulary, readVocabulary } from "./vocabulary.js";

const EXTENSION = ".gguf";
/** Of a file of a set; numbers count from 1. */
const SPLIT_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;
/** A directory with these is a Hugging Face checkpoint, even if it holds a conversion too. */
const OTHER_WEIGHTS = /\.(safetensors|bin)$|^layerstream\.json$/;
const MAX_SPLITS = 1000;
const MAX_ROPE_FACTORS = 8192;

export interface GgufPart {
  file: SafeFile;
  header: GgufHeader;
  tensors: MappedTensor[];
}

export interface GgufCheckpoint {
  /** Name of the first file, without extension and number. */
  name: string;
  /** Path of the first file, for errors. */
  file: string;
  config: Record<string, unknown>;
  parts: GgufPart[];
  /** Undefined if the file has none. */
  vocabulary: GgufVocabulary | undefined;
}

/**
 * Path of the GGUF file that `path` is, or of the (first) one in the directory that it is, unless that has weights in
 * another format too; undefined if there is none.
 * @throws CHECKPOINT_NOT_FOUND if a directory holds several models
 */
export async function findGguf(path: string): Promise<string | undefined> {
  try {
    if ((await stat(path)).isFile()) return (await isGguf(path)) ? resolve(path) : undefined;
    const names = await readdir(path);
    if (names.some((name) => OTHER_WEIGHTS.test(name))) return undefined;
    const files = names.filter((name) => name.endsWith(EXTENSION) && !(Number(SPLIT_NAME.exec(name)?.[2] ?? 1) > 1));
    if (files.length <= 1) return files[0] === undefined ? undefined : join(resolve(path), files[0]);
    throw new LayerstreamError("CHECKPOINT_NOT_FOUND", `${path} holds ${files.length} GGUF models.`, {
      file: path,
      remedy: `Give the path of one of them: ${files.sort().slice(0, 5).join(", ")}.`,
    });
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) return undefined;
    throw ioError(error, "read", path);
  }
}

/** By its name or by how it starts: some programs keep such files under names of their own. */
async function isGguf(file: string): Promise<boolean> {
  if (file.endsWith(EXTENSION)) return true;
  return withFile(file, async ({ size, read }) => size >= 4 && (await read(0, 4)).toString("latin1") === MAGIC);
}

/**
 * Opens the model in `file`, which may be the first of a set (name-00001-of-00003.gguf). Reads headers and the frequency
 * factors, no weights.
 * @throws GGUF_INVALID, UNSUPPORTED_MODEL, CHECKPOINT_NOT_FOUND, UNSAFE_PATH, IO_ERROR
 */
export async function openGguf(file: string): Promise<GgufCheckpoint> {
  const files = await findParts(file);
  const headers: GgufHeader[] = [];
  for (const { path } of files) headers.push(await readGgufHeader(path));
  const [first] = headers as [GgufHeader];
  const { metadata } = first;
  checkSplit(headers);
  const tensors = new Map(headers.flatMap((header) => [...header.tensors]));
  const ropeFactors = await readRopeFactors(headers);
  const { config, names } = ggufModel({ metadata, tensors, ropeFactors });
  const vocabulary = readVocabulary(metadata);
  if (vocabulary?.bosTokenId !== undefined) config.bos_token_id = vocabulary.bosTokenId;
  if (vocabulary?.eosTokenId !== undefined) config.eos_token_id = vocabulary.eosTokenId;
  const parts = headers.map((header, index) => ({
    file: files[index] as SafeFile,
    header,
    tensors: mapTensors(header, names),
  }));
  checkNames(first.file, parts);
  const name = SPLIT_NAME.exec(basename(file))?.[1] ?? basename(file, EXTENSION);
  return { name, file, config, parts, vocabulary };
}

async function findParts(file: string): Promise<SafeFile[]> {
  const [, prefix, number, count] = SPLIT_NAME.exec(basename(file)) ?? [];
  const total = Number(count ?? 1);
  if (number !== undefined && Number(number) !== 1) {
    throw notFound(file, `is part ${Number(number)} of a set`, `Give the first one, ${prefix}-00001-of-${count}.gguf.`);
  }
  if (total < 1 || total > MAX_SPLITS) {
    throw notFound(file, `is one of ${total} parts`, `At most ${MAX_SPLITS} are read.`);
  }
  const names =
    count === undefined
      ? [basename(file)]
      : Array.from({ length: total }, (_, index) => `${prefix}-${String(index + 1).padStart(5, "0")}-of-${count}.gguf`);
  const found: SafeFile[] = [];
  for (const name of names) {
    const part = await findFile(dirname(file), name);
    if (part === undefined)
      throw notFound(join(dirname(file), name), "does not exist", "Download all parts of the model.");
    found.push(part);
  }
  return found;
}

function notFound(file: string, what: string, remedy: string): LayerstreamError {
  return new LayerstreamError("CHECKPOINT_NOT_FOUND", `${file} ${what}.`, { file, remedy });
}

/** The parts must be those of one model: each knows its number and how many there are. */
function checkSplit(headers: readonly GgufHeader[]): void {
  for (const [index, { file, metadata, tensors }] of headers.entries()) {
    const count = metadata.count("split.count") ?? 0;
    if (Math.max(count, 1) !== headers.length || (count > 0 && metadata.count("split.no") !== index)) {
      throw ggufInvalid(file, `is not part ${index + 1} of ${headers.length}, by its split.no and split.count`);
    }
    for (const other of headers.slice(0, index)) {
      const twice = [...tensors.keys()].find((name) => other.tensors.has(name));
      if (twice !== undefined)
        throw ggufInvalid(file, `has tensor "${twice}", which is also in ${other.file}`, { tensor: twice });
    }
  }
}

function checkNames(file: string, parts: readonly GgufPart[]): void {
  const names = new Set<string>();
  for (const { name, offset } of parts.flatMap(({ tensors }) => tensors)) {
    if (names.has(name)) throw ggufInvalid(file, `has two tensors that mean "${name}"`, { tensor: name, offset });
    names.add(name);
  }
}

async function readRopeFactors(headers: readonly GgufHeader[]): Promise<Float32Array | undefined> {
  for (const { file, tensors } of headers) {
    const tensor = tensors.get(ROPE_FACTORS);
    if (tensor !== undefined) return readFloats(file, tensor);
  }
  return undefined;
}

async function readFloats(
  file: string,
  { name, type, dimensions, offset, byteLength }: GgufTensor,
): Promise<Float32Array> {
  const invalid = (what: string) => ggufInvalid(file, `tensor "${name}" ${what}`, { tensor: name, offset });
  if (type.name !== "F32" || dimensions.length !== 1 || byteLength > MAX_ROPE_FACTORS * 4) {
    throw invalid(`is ${type.name} [${dimensions.join(", ")}]; it must be a short list of F32`);
  }
  const bytes = await withFile(file, ({ read }) => read(offset, byteLength));
  const values = Float32Array.from({ length: byteLength / 4 }, (_, index) => bytes.readFloatLE(index * 4));
  if (!values.every((value) => Number.isFinite(value) && value > 0)) throw invalid("has a value that is not above 0");
  return values;
}
