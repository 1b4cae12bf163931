/** The directory that a store is written into: whether it may be, and whether there is room. */
import { mkdir, readdir, rm, rmdir, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf, ioError } from "../checkpoint/file-io.js";
import { isLayerStore, openLayerStore } from "../checkpoint/layer-store.js";
import type { Manifest } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import type { CompressionSettings } from "../quant/registry.js";
import { formatBytes } from "../units.js";
import { JOURNAL_FILE, type Journal, readJournal } from "./journal.js";
import { LOCK_FILE } from "./lock.js";

export interface TargetPlan {
  identity: string;
  settings: CompressionSettings;
  /** As `planHash` gives it. */
  hash: string;
}

export type TargetState =
  | { state: "finished"; manifest: Manifest }
  | { state: "unfinished"; journal: Journal }
  | { state: "empty" };

/**
 * What `directory` holds of the store that `plan` describes. Changes nothing.
 * @throws INVALID_ARGUMENT if it holds something else than a store; STORE_OUTDATED if it holds the store, finished or
 * not, of another checkpoint or with other settings; STORE_CORRUPT, NOT_WRITABLE
 */
export async function examineTarget(directory: string, plan: TargetPlan): Promise<TargetState> {
  // In this order, another process may begin or finish the store meanwhile: its journal comes before its other files, and
  // goes after its manifest has come.
  const names = await listDirectory(directory);
  const journal = await readJournalOf(directory);
  if (await isLayerStore(directory)) {
    const { manifest } = await openLayerStore(directory);
    const difference = differenceOf(manifest, plan);
    if (difference) throw outdated(directory, difference);
    return { state: "finished", manifest };
  }
  if (journal) {
    if (journal !== "damaged" && journal.plan === plan.hash) return { state: "unfinished", journal };
    throw outdated(directory, "is the unfinished store of another checkpoint, version or setting");
  }
  const foreign = names.find((name) => !isOwnLeftover(name));
  if (foreign === undefined) return { state: "empty" };
  throw new LayerstreamError(
    "INVALID_ARGUMENT",
    `${directory} is not empty and not a layer store: it holds ${foreign}.`,
    {
      file: directory,
      remedy: "Choose an empty directory, or one that does not exist yet.",
    },
  );
}

function differenceOf(manifest: Manifest, { identity, settings }: TargetPlan): string | undefined {
  if (manifest.source.identity !== identity)
    return `was made from another or an older checkpoint (${manifest.source.path})`;
  for (const option of ["compression", "embeddingCompression", "headCompression"] as const) {
    if (manifest[option] !== settings[option]) return `has ${option} "${manifest[option]}", not "${settings[option]}"`;
  }
  return undefined;
}

function outdated(directory: string, difference: string): LayerstreamError {
  return new LayerstreamError("STORE_OUTDATED", `The layer store ${directory} ${difference}.`, {
    file: directory,
    remedy: "Choose another directory, or delete this one.",
  });
}

/** True if a run that was killed left a lock or a journal behind. */
export async function hasLeftovers(directory: string): Promise<boolean> {
  return (await listDirectory(directory)).some(isOwnLeftover);
}

/** What a run keeps beside the store while it writes. */
function isOwnLeftover(name: string): boolean {
  return name.startsWith(LOCK_FILE) || name === JOURNAL_FILE || name === `${JOURNAL_FILE}.tmp`;
}

async function readJournalOf(directory: string): Promise<Journal | "damaged" | undefined> {
  try {
    return await readJournal(directory);
  } catch (error) {
    if (errnoOf((error as Error).cause) === "ENOTDIR") return undefined;
    throw error;
  }
}

async function listDirectory(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw ioError(error, "write", directory);
  }
}

/** Makes the directory; returns the topmost one that did not exist before, if any. @throws NOT_WRITABLE, NO_SPACE */
export async function makeDirectory(directory: string): Promise<string | undefined> {
  try {
    return await mkdir(directory, { recursive: true });
  } catch (error) {
    throw ioError(error, "write", directory);
  }
}

/** Removes `directory` and its parents up to `topmost`, as far as they are empty. */
export async function removeEmptyDirectories(directory: string, topmost: string): Promise<void> {
  for (let current = directory; current.startsWith(topmost); current = dirname(current)) {
    const removed = await rmdir(current).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}

/** @throws NO_SPACE with both numbers if fewer than `bytes` are free where `directory`, or the part of it that exists, lies. */
export async function checkFreeSpace(directory: string, bytes: number): Promise<void> {
  const free = await freeBytes(directory);
  if (free >= bytes) return;
  throw new LayerstreamError(
    "NO_SPACE",
    `Writing ${directory} needs ${formatBytes(bytes)} (${bytes} bytes), but only ${formatBytes(free)} (${free} bytes) are free.`,
    { file: directory, remedy: "Free some space, choose a directory on another disk, or use a stronger compression." },
  );
}

async function freeBytes(directory: string): Promise<number> {
  for (let current = directory; ; current = dirname(current)) {
    try {
      const { bavail, bsize } = await statfs(current);
      return bavail * bsize;
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" || dirname(current) === current) throw ioError(error, "write", current);
    }
  }
}

/** Removes files of this run's own making. */
export async function removeFiles(files: readonly string[]): Promise<void> {
  for (const file of files) await rm(file, { force: true });
}
