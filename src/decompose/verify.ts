import { join, resolve } from "node:path";
import { storedFileProblem } from "../checkpoint/layer-store.js";
import { CHECKSUM_BLOCK_BYTES, MANIFEST_FILE, type Manifest, type StoredFile } from "../checkpoint/manifest.js";
import { readManifest } from "../checkpoint/manifest-text.js";
import { LayerstreamError } from "../errors.js";
import { runTasks } from "./pool.js";

export interface StoreProblem {
  /** Name of the file in the store. */
  file: string;
  /** Tensors, "header" or "padding" that the damaged bytes may belong to. */
  affected: string[];
  /** The damaged range lies within these bytes. */
  offset: number;
  length: number;
  message: string;
}

export interface Verification {
  ok: boolean;
  problems: StoreProblem[];
  /** Bytes of the files that were read. */
  bytes: number;
}

export interface VerifyOptions {
  onProgress?: (progress: { bytesDone: number; bytesTotal: number }) => void;
  signal?: AbortSignal;
  workers?: number;
}

/**
 * Reads a whole store and compares it with the checksums of its manifest, and the manifest with its own.
 * @throws STORE_INVALID if there is no store; ABORTED; IO_ERROR. Damage is no error but the result.
 */
export async function verifyStore(directory: string, options: VerifyOptions = {}): Promise<Verification> {
  const path = resolve(directory);
  const manifest = await readManifestOrProblem(path);
  if ("message" in manifest) return { ok: false, problems: [manifest], bytes: 0 };
  const problems: StoreProblem[] = [];
  const readable: StoredFile[] = [];
  for (const file of manifest.files) {
    const problem = await storedFileProblem(path, file);
    if (problem === undefined) readable.push(file);
    else problems.push(wholeFile(file.name, file.size, problem));
  }
  const bytesTotal = readable.reduce((total, { size }) => total + size, 0);
  await runTasks(
    "checkFile",
    readable.map((file) => ({ stored: file, file: join(path, file.name), size: file.size, checksums: file.checksums })),
    bytesTotal,
    async ({ stored }, blocks) => {
      for (const block of blocks) problems.push(damagedBlock(stored, block));
    },
    {
      signal: options.signal,
      workers: options.workers,
      onBytes: (bytesDone) => options.onProgress?.({ bytesDone, bytesTotal }),
    },
  );
  problems.sort((a, b) => a.file.localeCompare(b.file) || a.offset - b.offset);
  return { ok: problems.length === 0, problems, bytes: bytesTotal };
}

async function readManifestOrProblem(path: string): Promise<Manifest | StoreProblem> {
  try {
    return await readManifest(path);
  } catch (error) {
    const damaged = error instanceof LayerstreamError && error.code === "STORE_CORRUPT";
    if (!damaged) throw error;
    return wholeFile(MANIFEST_FILE, 0, error.message);
  }
}

function wholeFile(file: string, length: number, message: string): StoreProblem {
  return { file, affected: [], offset: 0, length, message };
}

function damagedBlock(file: StoredFile, block: number): StoreProblem {
  const offset = block * CHECKSUM_BLOCK_BYTES;
  const length = Math.min(CHECKSUM_BLOCK_BYTES, file.size - offset);
  const affected = affectedBy(file, offset, offset + length);
  const what = affected.length > 0 ? affected.join(", ") : "the file";
  return {
    file: file.name,
    affected,
    offset,
    length,
    message: `bytes ${offset} to ${offset + length} are damaged: ${what}`,
  };
}

/** What lies between `begin` and `end`: names of tensors, and "header" or "padding" where bytes are neither. */
function affectedBy(file: StoredFile, begin: number, end: number): string[] {
  const first = file.stages[0];
  if (!first) return [];
  const affected: string[] = begin < first.offset ? ["header"] : [];
  let padding = false;
  let position = first.offset;
  const gap = (until: number) => {
    padding ||= Math.max(position, begin) < Math.min(until, end);
  };
  for (const tensor of file.stages.flatMap((stage) => stage.tensors)) {
    gap(tensor.offset);
    position = tensor.offset + tensor.byteLength;
    if (tensor.offset < end && position > begin) affected.push(tensor.name);
  }
  gap(file.size);
  return padding ? [...affected, "padding"] : affected;
}
