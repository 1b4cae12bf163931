/** Writes the files of a store, each in one step, so that a run that was killed at any point can be taken up again. */
import { readFileSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { type Checkpoint, isUnchanged } from "../checkpoint/checkpoint.js";
import { ioError, syncDirectory, writeFileAtomic } from "../checkpoint/file-io.js";
import { MANIFEST_FILE, MANIFEST_VERSION, type Manifest } from "../checkpoint/manifest.js";
import { encodeManifest, readManifest } from "../checkpoint/manifest-text.js";
import { LayerstreamError } from "../errors.js";
import type { Assignment } from "../models/assignment.js";
import type { CompressionSettings } from "../quant/registry.js";
import { type Journal, keepIntact, removeJournal, writeJournal } from "./journal.js";
import type { FileLayout } from "./layout.js";
import { runTasks } from "./pool.js";
import { checkFreeSpace, removeFiles, type TargetPlan } from "./target.js";

export interface DecomposeProgress {
  /** Of the store's files and, before them, of weights that are surveyed; what an earlier run has done counts as done. */
  bytesDone: number;
  bytesTotal: number;
  filesDone: number;
  filesTotal: number;
}

export interface StoreWork {
  directory: string;
  checkpoint: Checkpoint;
  settings: CompressionSettings;
  assignment: Assignment;
  layouts: FileLayout[];
  plan: TargetPlan;
}

export interface WriteOptions {
  onProgress?: (progress: DecomposeProgress) => void;
  signal?: AbortSignal;
  workers?: number;
}

const GENERATOR = `layerstream ${packageVersion()}`;
const MARGIN_BYTES = 1024 * 1024;
const MARGIN_FRACTION = 0.005;

/**
 * Writes all files that `earlier` does not list as finished, then the manifest. The caller holds the lock.
 * @throws NO_SPACE, NOT_WRITABLE, IO_ERROR, QUANTIZATION_FAILED, ABORTED; STORE_OUTDATED if the checkpoint changes
 */
export async function writeStore(work: StoreWork, earlier: Journal, options: WriteOptions): Promise<Manifest> {
  const { directory, layouts } = work;
  const journal = await keepIntact(directory, earlier, layouts);
  const missing = layouts.filter(({ name }) => journal.finished[name] === undefined);
  await removeFiles(missing.flatMap(({ name }) => [join(directory, name), join(directory, temporaryName(name))]));
  await checkFreeSpace(directory, bytesNeeded(layouts, missing));
  await writeJournal(directory, journal);
  try {
    await writeMissing(work, missing, journal, options);
  } catch (error) {
    await removeFiles(missing.map(({ name }) => join(directory, temporaryName(name))));
    if (Object.keys(journal.finished).length === 0) await removeJournal(directory);
    throw error;
  }
  if (!(await isUnchanged(work.checkpoint))) {
    await removeFiles(layouts.map(({ name }) => join(directory, name)));
    await removeJournal(directory);
    throw new LayerstreamError("STORE_OUTDATED", `${work.checkpoint.path} changed while it was decomposed.`, {
      file: work.checkpoint.path,
      remedy: "Run again when nothing writes to the checkpoint.",
    });
  }
  await writeFileAtomic(join(directory, MANIFEST_FILE), encodeManifest(describeStore(work, journal)));
  await removeJournal(directory);
  await syncDirectory(directory);
  return readManifest(directory);
}

async function writeMissing(
  { directory, layouts }: StoreWork,
  missing: readonly FileLayout[],
  journal: Journal,
  { onProgress, signal, workers }: WriteOptions,
): Promise<void> {
  const bytesTotal = sum(layouts);
  const bytesKept = bytesTotal - sum(missing);
  const report = (bytes: number) =>
    onProgress?.({
      bytesDone: bytesKept + bytes,
      bytesTotal,
      filesDone: Object.keys(journal.finished).length,
      filesTotal: layouts.length,
    });
  // The largest first, so that no thread is left with one at the end.
  const tasks = [...missing]
    .sort((a, b) => b.size - a.size)
    .map(({ name, header, segments }) => ({ name, file: join(directory, temporaryName(name)), header, segments }));
  const finish = async ({ name, file }: { name: string; file: string }, checksums: string) => {
    const target = join(directory, name);
    await rename(file, target).catch((error) => {
      throw ioError(error, "write", target);
    });
    journal.finished[name] = checksums;
    await writeJournal(directory, journal);
  };
  if (tasks.length > 0) await runTasks("writeFile", tasks, sum(missing), finish, { onBytes: report, signal, workers });
}

function describeStore(work: StoreWork, journal: Journal): Omit<Manifest, "checksum"> {
  const { checkpoint, settings, assignment, layouts } = work;
  return {
    formatVersion: MANIFEST_VERSION,
    generator: GENERATOR,
    source: { path: checkpoint.path, identity: checkpoint.identity, files: checkpoint.sourceFiles },
    ...settings,
    config: checkpoint.config,
    files: layouts.map(({ name, size, stages }) => ({ name, size, checksums: journal.finished[name] ?? "", stages })),
    tied: assignment.tied,
    dropped: assignment.dropped,
  };
}

/** What is to be written, the manifest and the journal included, and a margin for the file system's own needs. */
export function bytesNeeded(layouts: readonly FileLayout[], missing: readonly FileLayout[]): number {
  const description = 2 * JSON.stringify(layouts.map(({ stages }) => stages)).length + sum(layouts) / 50_000;
  const bytes = sum(missing) + description;
  return Math.ceil(bytes * (1 + MARGIN_FRACTION) + MARGIN_BYTES);
}

function sum(layouts: readonly FileLayout[]): number {
  return layouts.reduce((total, { size }) => total + size, 0);
}

function temporaryName(name: string): string {
  return `${name}.tmp`;
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
