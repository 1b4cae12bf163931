/** A Hugging Face model directory or a GGUF file, opened without reading weights. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { LayerstreamError } from "../errors.js";
import { errnoOf, ioError, readFully } from "./file-io.js";
import { findGguf, openGguf } from "./gguf/gguf-checkpoint.js";
import type { GgufVocabulary } from "./gguf/vocabulary.js";
import { readJsonFile } from "./json-file.js";
import { MANIFEST_FILE, type SourceFile } from "./manifest.js";
import { readPyTorchFile } from "./pytorch/pytorch-file.js";
import type { RowDimensions } from "./row-source.js";
import { cacheFolderOf, findFile, type SafeFile } from "./safe-path.js";
import { readSafetensorsHeader, type SafetensorsTensor } from "./safetensors.js";
import { findShards, readShardIndex, type ShardIndex, WEIGHT_FILES } from "./shard-index.js";

export const CONFIG_FILE = "config.json";

/** Files besides the weights that a layer store carries along, where the checkpoint has them. */
const COMPANION_FILES = [
  CONFIG_FILE,
  "generation_config.json",
  "quantize_config.json",
  "quant_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "qwen.tiktoken",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
];

const SAMPLES = 8;
const SAMPLE_BYTES = 4096;

/** What a shard holds. */
export interface ShardHeader {
  /** Where tensor data may begin. */
  dataOffset: number;
  /** In hex, over what describes the tensors. */
  hash: string;
  tensors: ReadonlyMap<string, ShardTensor>;
}

export interface Shard extends SafeFile {
  header: ShardHeader;
}

/** Tensors of a .bin file may share bytes; those of a GGUF file may have blocks as dtype. */
export interface ShardTensor extends SafetensorsTensor {
  /** Of each axis, in elements, not negative; absent: row-major. `byteLength` spans from the first to the last element. */
  strides?: readonly number[];
  /** Where row r lies, in rows, if not at r: of GGUF's query and key. */
  rowDims?: RowDimensions;
}

export interface CheckpointTensor extends ShardTensor {
  shard: Shard;
}

export interface Checkpoint {
  /** Absolute. */
  path: string;
  /** Last part of the path, or owner--name in the Hugging Face cache. */
  name: string;
  config: Record<string, unknown>;
  /** Path of config.json, or of the GGUF file that takes its place. */
  configFile: string;
  shards: Shard[];
  tensors: Map<string, CheckpointTensor>;
  /** config.json, tokenizer and generation settings: copied into the store as they are. */
  companions: SafeFile[];
  /** Of a GGUF file: what it holds instead of companions. */
  gguf?: { vocabulary: GgufVocabulary | undefined };
  /**
   * SHA-256, in hex, over names, sizes and `headerHash`es of all files, and the modification times of shards. It
   * changes with the checkpoint. It cannot notice an edit of weights that keeps size, header, modification time and
   * the sampled bytes. An identical copy has the same identity if the copy kept the times, or lies in the Hugging
   * Face cache, where the names of the blobs take their place.
   */
  identity: string;
  sourceFiles: SourceFile[];
}

/**
 * Opens a checkpoint: config.json, the headers of its shards, the list of its other files; or a GGUF file, which holds
 * all that.
 * @param location directory, or path of a GGUF file
 * @throws CHECKPOINT_NOT_FOUND, CONFIG_INVALID, SHARD_INDEX_INVALID, SAFETENSORS_INVALID, PICKLE_INVALID, PICKLE_REFUSED,
 * ARCHIVE_INVALID, GGUF_INVALID, UNSUPPORTED_MODEL, UNSAFE_PATH, IO_ERROR
 */
export async function openCheckpoint(location: string): Promise<Checkpoint> {
  const path = resolve(location);
  const gguf = await findGguf(path);
  if (gguf !== undefined) return openGgufCheckpoint(gguf);
  const { config, configFile } = await readCheckpointConfig(path);
  const { shards, index } = await openShards(path);
  const companions = await findCompanions(path);
  const sourceFiles = await Promise.all([...shards.map(describeShard), ...companions.map(describeCompanion)]);
  const cacheFolder = cacheFolderOf(await realpath(path));
  return {
    path,
    name: cacheFolder ? basename(cacheFolder).slice("models--".length) : basename(path),
    config,
    configFile,
    shards,
    tensors: collectTensors(shards, index),
    companions,
    identity: identityOf(sourceFiles),
    sourceFiles,
  };
}

async function openGgufCheckpoint(file: string): Promise<Checkpoint> {
  const { config, parts, name, vocabulary } = await openGguf(file);
  const shards = parts.map(({ file: part, header: { dataOffset, hash }, tensors }) => ({
    ...part,
    header: { dataOffset, hash, tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])) },
  }));
  const sourceFiles = await Promise.all(shards.map(describeShard));
  return {
    path: file,
    name,
    config,
    configFile: file,
    shards,
    tensors: collectTensors(shards, undefined),
    companions: [],
    gguf: { vocabulary },
    identity: identityOf(sourceFiles),
    sourceFiles,
  };
}

function identityOf(sourceFiles: readonly SourceFile[]): string {
  return createHash("sha256").update(JSON.stringify(sourceFiles)).digest("hex");
}

/**
 * config.json of the checkpoint, and its path; looks at no other file. Of a GGUF file, what it amounts to.
 * @param location directory, or path of a GGUF file
 * @throws CHECKPOINT_NOT_FOUND, CONFIG_INVALID, GGUF_INVALID, UNSUPPORTED_MODEL, UNSAFE_PATH, IO_ERROR
 */
export async function readCheckpointConfig(
  location: string,
): Promise<{ config: Record<string, unknown>; configFile: string }> {
  const path = resolve(location);
  const gguf = await findGguf(path);
  if (gguf !== undefined) return { config: (await openGguf(gguf)).config, configFile: gguf };
  await checkDirectory(path);
  const config = await readJsonFile(path, CONFIG_FILE, { code: "CONFIG_INVALID" });
  if (!config) throw notFound(path, `has no ${CONFIG_FILE}`, "Give the directory of a Hugging Face checkpoint.");
  return { config, configFile: join(path, CONFIG_FILE) };
}

async function checkDirectory(path: string): Promise<void> {
  try {
    if (!(await stat(path)).isDirectory()) {
      throw notFound(path, "is not a directory", `Give the directory that holds ${CONFIG_FILE}, not a file in it.`);
    }
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") throw notFound(path, "does not exist", "Check the path.");
    throw ioError(error, "read", path);
  }
}

async function openShards(path: string): Promise<{ shards: Shard[]; index: ShardIndex | undefined }> {
  const { files, index } = await findWeights(path);
  const shards: Shard[] = [];
  for (const file of files) {
    const read = file.name.endsWith(".bin") ? readPyTorchFile : readSafetensorsHeader;
    shards.push({ ...file, header: await read(file.path) });
  }
  return { shards, index };
}

async function findWeights(path: string): Promise<{ files: SafeFile[]; index: ShardIndex | undefined }> {
  for (const names of WEIGHT_FILES) {
    const single = await findFile(path, names.single);
    if (single) return { files: [single], index: undefined };
    const index = await readShardIndex(path, names.index);
    if (index) return { files: await findShards(path, index), index };
  }
  throw await noWeights(path);
}

async function noWeights(path: string): Promise<LayerstreamError> {
  const names = await readdir(path);
  if (names.includes(MANIFEST_FILE)) {
    return notFound(path, "is a layer store, not a checkpoint", "Use it as the model itself.");
  }
  const other = names.find((name) => /\.(bin|pth?|ckpt)$/.test(name));
  const known = WEIGHT_FILES.flatMap(({ single, index }) => [single, index]).join(", ");
  return other
    ? notFound(path, `has weights in ${other} only`, `Weights are read from ${known}: convert them.`)
    : notFound(path, `has none of ${known}`, "Download the checkpoint's weights.");
}

function notFound(path: string, what: string, remedy: string): LayerstreamError {
  return new LayerstreamError("CHECKPOINT_NOT_FOUND", `${path} ${what}.`, { file: path, remedy });
}

function collectTensors(shards: readonly Shard[], index: ShardIndex | undefined): Map<string, CheckpointTensor> {
  const tensors = new Map<string, CheckpointTensor>();
  for (const shard of shards) {
    for (const tensor of shard.header.tensors.values()) {
      const other = tensors.get(tensor.name)?.shard;
      if (other) {
        throw invalidIndex(
          index,
          `tensor "${tensor.name}" is in ${other.name} and again in ${shard.name}`,
          tensor.name,
        );
      }
      tensors.set(tensor.name, { ...tensor, shard });
    }
  }
  for (const [name, shardName] of index?.weightMap ?? []) {
    if (tensors.get(name)?.shard.name !== shardName) {
      throw invalidIndex(index, `tensor "${name}" is not in shard ${shardName}, where the index has it`, name);
    }
  }
  return tensors;
}

function invalidIndex(index: ShardIndex | undefined, what: string, tensor: string): LayerstreamError {
  const file = index?.file;
  return new LayerstreamError("SHARD_INDEX_INVALID", `${file}: ${what}.`, {
    file,
    tensor,
    remedy: "The shards and the index do not belong together: download the checkpoint again.",
  });
}

async function findCompanions(path: string): Promise<SafeFile[]> {
  const found: SafeFile[] = [];
  for (const name of COMPANION_FILES) {
    const file = await findFile(path, name);
    if (file) found.push(file);
  }
  return found;
}

async function describeShard(shard: Shard): Promise<SourceFile> {
  const hash = createHash("sha256").update(shard.header.hash);
  hash.update(shard.blob ?? (await readSamples(shard)));
  // Whole milliseconds: tools that copy times keep no more.
  const modifiedMs = shard.blob ? 0 : Math.floor(shard.modifiedMs);
  return { name: shard.name, size: shard.size, modifiedMs, headerHash: hash.digest("hex") };
}

/** Evenly spread over the data: they tell files apart whose times an archive or image has normalised. */
async function readSamples(shard: Shard): Promise<Uint8Array> {
  const samples = Buffer.alloc(SAMPLES * SAMPLE_BYTES);
  const last = Math.max(shard.header.dataOffset, shard.size - SAMPLE_BYTES);
  const step = (last - shard.header.dataOffset) / (SAMPLES - 1);
  const handle = await open(shard.path, "r");
  try {
    for (let i = 0; i < SAMPLES; i++) {
      const sample = samples.subarray(i * SAMPLE_BYTES, (i + 1) * SAMPLE_BYTES);
      await readFully(handle, sample, Math.floor(shard.header.dataOffset + i * step));
    }
    return samples;
  } catch (error) {
    throw ioError(error, "read", shard.path);
  } finally {
    await handle.close();
  }
}

async function describeCompanion(file: SafeFile): Promise<SourceFile> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file.realPath)) hash.update(chunk as Buffer);
  } catch (error) {
    throw ioError(error, "read", file.path);
  }
  return { name: file.name, size: file.size, modifiedMs: 0, headerHash: hash.digest("hex") };
}

/** True if size and modification time of every shard are still those that `checkpoint` was opened with. */
export async function isUnchanged(checkpoint: Checkpoint): Promise<boolean> {
  for (const file of [...checkpoint.shards, ...checkpoint.companions]) {
    const now = await findFile(dirname(file.path), file.name);
    if (now?.size !== file.size || now.modifiedMs !== file.modifiedMs || now.realPath !== file.realPath) return false;
  }
  return true;
}
