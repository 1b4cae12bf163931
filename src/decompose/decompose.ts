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
import { type Candidate, candidatesOf, type Encodings } from "./encoding.js";
import { type Journal, planHash, removeJournal } from "./journal.js";
import { type FileLayout, layoutBytes, layoutCopy, layoutLayer } from "./layout.js";
import { lockStore } from "./lock.js";
import { refuseRequantization } from "./requantize.js";
import { bytesNeeded, type DecomposeProgress, type StoreWork, writeStore } from "./store-writer.js";
import { survey, surveyBytes } from "./survey.js";
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
  /** Default "8bit" where matrices are quantized, else as they are stored. A tied embedding is stored as the head. */
  embeddingCompression?: Compression;
  /** Default "8bit" where matrices are quantized, else as they are stored. */
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
  const layoutsWith = (encodings: Encodings) => [
    ...assignment.layers.map((layer) => layoutLayer(layer, settings, encodings)),
    ...checkpoint.companions.map(layoutCopy),
    ...[...embeddedFiles(checkpoint)].map(([name, bytes]) => layoutBytes(name, bytes)),
  ];
  const directory = resolve(options.store ?? storePathFor(checkpoint, settings));
  const { identity } = checkpoint;
  const layouts = layoutsWith({});
  const plan = { identity, settings, hash: planHash(identity, settings, layouts) };
  const candidates = candidatesOf(assignment, settings, architecture.embeddingTensor);
  const work: Preparation = { directory, checkpoint, settings, assignment, plan, candidates, layoutsWith };

  const target = await examineTarget(directory, plan);
  // What a survey has to find out first is checked before the first file.
  const isKnown = surveyBytes(candidates) === 0;
  if (target.state === "empty" && isKnown) await checkFreeSpace(directory, bytesNeeded(layouts, layouts));
  const alreadyDone = target.state === "finished";
  // A run that was killed at its very end may have left its lock and journal beside a finished store.
  const isTidy = alreadyDone && !(await hasLeftovers(directory));
  const manifest = isTidy ? target.manifest : await claimAndWrite(work, options);
  const deleted = options.deleteOriginal ? await deleteVerified(work, options) : [];
  return { store: directory, manifest, alreadyDone, deleted };
}

/** What is known before any weight has been read. */
interface Preparation extends Omit<StoreWork, "layouts"> {
  candidates: Candidate[][];
  layoutsWith(encodings: Encodings): FileLayout[];
}

async function claimAndWrite(work: Preparation, options: DecomposeOptions): Promise<Manifest> {
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
      return await surveyAndWrite(work, target.state === "unfinished" ? target.journal : undefined, options);
    } finally {
      await unlock();
    }
  } catch (error) {
    if (created !== undefined) await removeEmptyDirectories(directory, created);
    throw error;
  }
}

async function surveyAndWrite(
  work: Preparation,
  earlier: Journal | undefined,
  options: DecomposeOptions,
): Promise<Manifest> {
  const { plan, candidates, layoutsWith } = work;
  const { signal, workers, onProgress } = options;
  const surveyed = surveyBytes(candidates);
  const expected = layoutsWith({});
  const later = expected.reduce((sum, { size }) => sum + size, 0);
  const onBytes = (bytesDone: number) =>
    onProgress?.({ bytesDone, bytesTotal: surveyed + later, filesDone: 0, filesTotal: expected.length });
  const encodings = earlier?.encodings ?? (await survey(candidates, { signal, workers, onBytes }));
  const journal = earlier ?? { plan: plan.hash, finished: {}, encodings };
  return writeStore({ ...work, layouts: layoutsWith(encodings) }, journal, {
    signal,
    workers,
    onProgress: ({ bytesDone, bytesTotal, ...files }) =>
      onProgress?.({ bytesDone: surveyed + bytesDone, bytesTotal: surveyed + bytesTotal, ...files }),
  });
}

async function deleteVerified(work: Preparation, { signal, workers }: DecomposeOptions): Promise<string[]> {
  const { ok, problems } = await verifyStore(work.directory, { signal, workers });
  if (ok) return deleteShards(work.checkpoint);
  throw new LayerstreamError(
    "STORE_CORRUPT",
    `The original was kept: the store ${work.directory} is damaged (${problems[0]?.file}: ${problems[0]?.message}).`,
    { file: work.directory, remedy: "Check the disk, delete the store, and decompose again." },
  );
}
