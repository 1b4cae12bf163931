import { resolve } from "node:path";
import { openCheckpoint, readCheckpointConfig } from "../checkpoint/checkpoint.js";
import { storePathFor } from "../checkpoint/layer-store.js";
import type { Manifest } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import { assignTensors } from "../models/assignment.js";
import { architectureOf } from "../models/registry.js";
import { type Compression, compressionSettings } from "../quant/registry.js";
import { deleteShards } from "./delete-original.js";
import { embeddedFiles } from "./embedded-files.js";
import { planHash, removeJournal } from "./journal.js";
import { layoutBytes, layoutCopy, layoutLayer } from "./layout.js";
import { lockStore } from "./lock.js";
import { refuseRequantization } from "./requantize.js";
import { bytesNeeded, type DecomposeProgress, type StoreWork, writeStore } from "./store-writer.js";
import { checkFreeSpace, examineTarget, hasLeftovers, makeDirectory, removeEmptyDirectories } from "./target.js";
import { verifyStore } from "./verify.js";

export type { DecomposeProgress } from "./store-writer.js";

export interface DecomposeOptions {
  /** Directory of a Hugging Face checkpoint. */
  checkpoint: string;
  /** Directory of the store: new, empty, or holding the same store, finished or not. Default: see `storePathFor`. */
  store?: string;
  /** Of matrices. Default "none". */
  compression?: Compression;
  /** Default "8bit" under any compression, else "none". A tied embedding is stored as the head. */
  embeddingCompression?: Compression;
  /** Default "8bit" under any compression, else "none". */
  headCompression?: Compression;
  /** Let compression quantize weights that come quantized. Default false: such a call is refused. */
  requantize?: boolean;
  onProgress?: (progress: DecomposeProgress) => void;
  signal?: AbortSignal;
  /** Delete the shards once the finished store has been read back and verified. */
  deleteOriginal?: boolean;
  /** Threads; default: two a core, at most 8. */
  workers?: number;
}

export interface DecomposeResult {
  /** Absolute path. */
  store: string;
  manifest: Manifest;
  /** The store was there and finished: nothing was written. */
  alreadyDone: boolean;
  /** Files of the checkpoint that `deleteOriginal` deleted. */
  deleted: string[];
}

/**
 * Writes the layer store of a checkpoint. Interrupted at any point, it goes on where it stopped when it is called
 * again, and the result is the same. Everything that can be checked is checked before anything is written.
 * @throws LayerstreamError; see the functions that it calls for the codes
 */
export async function decompose(options: DecomposeOptions): Promise<DecomposeResult> {
  const settings = compressionSettings(options);
  const { config, configFile } = await readCheckpointConfig(options.checkpoint);
  const architecture = architectureOf(config, configFile);
  const checkpoint = await openCheckpoint(options.checkpoint);
  const assignment = assignTensors(checkpoint, architecture);
  if (!options.requantize) refuseRequantization(checkpoint.path, assignment, settings);
  const layouts = [
    ...assignment.layers.map((layer) => layoutLayer(layer, settings)),
    ...checkpoint.companions.map(layoutCopy),
    ...[...embeddedFiles(checkpoint)].map(([name, bytes]) => layoutBytes(name, bytes)),
  ];
  const directory = resolve(options.store ?? storePathFor(checkpoint, settings));
  const { identity } = checkpoint;
  const plan = { identity, settings, hash: planHash(identity, settings, layouts) };
  const work: StoreWork = { directory, checkpoint, settings, assignment, layouts, plan };

  const target = await examineTarget(directory, plan);
  if (target.state === "empty") await checkFreeSpace(directory, bytesNeeded(layouts, layouts));
  const alreadyDone = target.state === "finished";
  // A run that was killed at its very end may have left its lock and journal beside a finished store.
  const isTidy = alreadyDone && !(await hasLeftovers(directory));
  const manifest = isTidy ? target.manifest : await claimAndWrite(work, options);
  const deleted = options.deleteOriginal ? await deleteVerified(work, options) : [];
  return { store: directory, manifest, alreadyDone, deleted };
}

async function claimAndWrite(work: StoreWork, options: DecomposeOptions): Promise<Manifest> {
  const { directory, plan } = work;
  const created = await makeDirectory(directory);
  try {
    const unlock = await lockStore(directory);
    try {
      // Again, now that nobody else can change it.
      const target = await examineTarget(directory, plan);
      if (target.state === "finished") {
        await removeJournal(directory);
        return target.manifest;
      }
      const journal = target.state === "unfinished" ? target.journal : undefined;
      return await writeStore(work, journal, options);
    } finally {
      await unlock();
    }
  } catch (error) {
    if (created !== undefined) await removeEmptyDirectories(directory, created);
    throw error;
  }
}

async function deleteVerified(work: StoreWork, { signal, workers }: DecomposeOptions): Promise<string[]> {
  const { ok, problems } = await verifyStore(work.directory, { signal, workers });
  if (ok) return deleteShards(work.checkpoint);
  throw new LayerstreamError(
    "STORE_CORRUPT",
    `The original was kept: the store ${work.directory} is damaged (${problems[0]?.file}: ${problems[0]?.message}).`,
    { file: work.directory, remedy: "Check the disk, delete the store, and decompose again." },
  );
}
