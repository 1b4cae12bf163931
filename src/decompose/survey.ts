/** Finds the encoding of each candidate by reading it once; bounded memory, nothing is kept but the answers. */
import { native } from "../native/binding.js";
import { batches } from "./copy-rows.js";
import {
  type Candidate,
  candidateBytes,
  type Encoding,
  type Encodings,
  LARGEST_RATIO,
  lz4BlockRows,
  mayBeWindowed,
  windowEncoding,
} from "./encoding.js";
import { rangeOf } from "./following-range.js";
import { lz4Block, rowBlocks } from "./lz4-blocks.js";
import { openRows } from "./open-rows.js";
import { type RunOptions, runTasks } from "./pool.js";
import type { RowReader, Workspace } from "./row-source.js";
import type { Control } from "./task.js";

/** A matrix whose first blocks do not shrink enough is given up. */
const SAMPLE_BYTES = 16 * 1024 * 1024;

/** Each element of `files` is a task. @throws IO_ERROR, ABORTED */
export async function survey(files: readonly Candidate[][], options: RunOptions): Promise<Encodings> {
  const tasks = files.filter((candidates) => candidates.length > 0).map((candidates) => ({ candidates }));
  const bytes = surveyBytes(files);
  const found: Record<string, Encoding> = {};
  if (tasks.length > 0) {
    await runTasks(
      "surveyTensors",
      tasks,
      bytes,
      async (_, encodings) => void Object.assign(found, encodings),
      options,
    );
  }
  return found;
}

/** What a survey reads at most. */
export function surveyBytes(files: readonly Candidate[][]): number {
  return files.flat().reduce((sum, candidate) => sum + candidateBytes(candidate), 0);
}

/** In a worker: the encodings of some candidates. */
export function surveyCandidates(candidates: readonly Candidate[], workspace: Workspace, control: Control): Encodings {
  const found: Record<string, Encoding> = {};
  for (const [index, candidate] of candidates.entries()) {
    const next = candidates[index + 1];
    workspace.reader.next = next && rangeOf(next.source);
    const encoding = encodingOf(candidate, workspace, control);
    if (encoding) found[candidate.name] = encoding;
  }
  return found;
}

function encodingOf(candidate: Candidate, workspace: Workspace, control: Control): Encoding | undefined {
  const progress = new Progress(control);
  const encoding = windowsOf(candidate, workspace, progress) ?? blocksOf(candidate, workspace, progress);
  progress.reach(candidateBytes(candidate));
  return encoding;
}

/** Counts bytes of a candidate once, however often they are read. */
class Progress {
  #bytes = 0;

  constructor(private readonly control: Control) {}

  /** @throws ABORTED */
  reach(bytes: number): void {
    this.control.throwIfStopped();
    if (bytes <= this.#bytes) return;
    this.control.addBytes(bytes - this.#bytes);
    this.#bytes = bytes;
  }
}

/** Stops reading as soon as the answer is no. */
function windowsOf(candidate: Candidate, workspace: Workspace, progress: Progress): Encoding | undefined {
  const { source, sourceFormat, columns } = candidate;
  if (!mayBeWindowed(candidate)) return undefined;
  const rows = openRows(source, workspace);
  let encoding = windowEncoding(columns, 0);
  let escapes = 0;
  for (const batch of encoding ? batches(rows) : []) {
    const weights = asBf16(sourceFormat, batch, rows, columns);
    if (!weights) return undefined;
    escapes = Math.max(escapes, native().mostEscapes(weights, batch.count, columns));
    encoding = windowEncoding(columns, escapes);
    if (!encoding) return undefined;
    progress.reach((batch.first + batch.count) * rows.rowBytes);
  }
  return encoding;
}

/** Stops reading when the first blocks are not worth it. */
function blocksOf(candidate: Candidate, workspace: Workspace, progress: Progress): Encoding | undefined {
  const count = lz4BlockRows(candidate);
  if (count === undefined) return undefined;
  const bytes: number[] = [];
  let [plain, stored] = [0, 0];
  for (const block of rowBlocks(openRows(candidate.source, workspace), count)) {
    const compressed = lz4Block(block).length;
    bytes.push(compressed);
    plain += block.length;
    stored += compressed;
    if (plain >= SAMPLE_BYTES && stored > LARGEST_RATIO * plain) return undefined;
    progress.reach(plain);
  }
  return stored <= LARGEST_RATIO * plain ? { format: "lz4", rows: count, bytes } : undefined;
}

function asBf16(
  sourceFormat: Candidate["sourceFormat"],
  { bytes, count }: { bytes: Uint8Array; count: number },
  rows: RowReader,
  columns: number,
): Uint8Array | undefined {
  if (sourceFormat === "bf16") return bytes;
  const output = new Uint8Array(count * columns * 2);
  return native().narrowToBf16(bytes.subarray(0, count * rows.rowBytes), output) ? output : undefined;
}
