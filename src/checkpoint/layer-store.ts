/** The directory that `decompose` writes and the engine reads. */
import { lstat } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { LayerstreamError } from "../errors.js";
import { type CompressionSettings, compressionSettings } from "../quant/registry.js";
import type { Checkpoint } from "./checkpoint.js";
import { errnoOf, ioError } from "./file-io.js";
import { MANIFEST_FILE, type Manifest, type StoredFile, type StoredStage, type StoredTensor } from "./manifest.js";
import { readManifest } from "./manifest-text.js";

export interface TensorLocation {
  file: StoredFile;
  stage: StoredStage;
  tensor: StoredTensor;
}

export interface LayerStore {
  /** Absolute. */
  path: string;
  manifest: Manifest;
  tensors: ReadonlyMap<string, TensorLocation>;
  /** Absolute path of one of its files. */
  filePath(name: string): string;
}

/** True if `directory` holds a finished layer store (which may still be damaged). */
export async function isLayerStore(directory: string): Promise<boolean> {
  try {
    return (await lstat(join(directory, MANIFEST_FILE))).isFile();
  } catch {
    return false;
  }
}

/**
 * Opens a store: checks the manifest, and that every file is there with the right size. Reads no weights.
 * @throws STORE_INVALID, STORE_OUTDATED, STORE_CORRUPT, IO_ERROR
 */
export async function openLayerStore(directory: string): Promise<LayerStore> {
  const path = resolve(directory);
  const manifest = await readManifest(path);
  const tensors = new Map<string, TensorLocation>();
  for (const file of manifest.files) {
    const problem = await storedFileProblem(path, file);
    if (problem) {
      throw new LayerstreamError("STORE_CORRUPT", `${join(path, file.name)} ${problem}.`, {
        file: join(path, file.name),
        remedy: `Delete ${path} and decompose the checkpoint again.`,
      });
    }
    for (const stage of file.stages) {
      for (const tensor of stage.tensors) tensors.set(tensor.name, { file, stage, tensor });
    }
  }
  return { path, manifest, tensors, filePath: (name) => join(path, name) };
}

/** Why the file cannot be what the manifest describes, as the end of a sentence; undefined if size and kind fit. */
export async function storedFileProblem(directory: string, file: StoredFile): Promise<string | undefined> {
  const path = join(directory, file.name);
  try {
    const stats = await lstat(path);
    if (!stats.isFile()) return "is not a regular file";
    if (stats.size === file.size) return undefined;
    return `has ${stats.size} bytes instead of ${file.size}`;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "is missing";
    throw ioError(error, "read", path);
  }
}

export interface StorePathOptions extends Partial<CompressionSettings> {
  /** Directory in which stores go. */
  savingPath?: string;
  /** The same, if savingPath is absent. */
  cacheDir?: string;
}

/**
 * Where the store of a checkpoint goes when the user names no place: a folder keyed by name, identity and settings,
 * under savingPath, cacheDir, $LAYERSTREAM_CACHE, $XDG_CACHE_HOME/layerstream or ~/.cache/layerstream.
 */
export function storePathFor(checkpoint: Pick<Checkpoint, "name" | "identity">, options: StorePathOptions): string {
  const settings = compressionSettings(options);
  const defaults = compressionSettings({ compression: settings.compression });
  const parts = [
    checkpoint.name.replace(/[^A-Za-z0-9._-]/g, "-"),
    checkpoint.identity.slice(0, 12),
    settings.compression,
  ];
  if (settings.embeddingCompression !== defaults.embeddingCompression) {
    parts.push("embedding", settings.embeddingCompression);
  }
  if (settings.headCompression !== defaults.headCompression) parts.push("head", settings.headCompression);
  return join(resolve(options.savingPath ?? options.cacheDir ?? defaultCacheDirectory()), parts.join("-"));
}

/** Where layerstream keeps what it makes, if no option says otherwise. */
export function defaultCacheDirectory(): string {
  const { LAYERSTREAM_CACHE: own, XDG_CACHE_HOME: shared } = process.env;
  return own || (shared ? join(shared, "layerstream") : join(homedir(), ".cache", "layerstream"));
}
