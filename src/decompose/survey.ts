/** Finds the encoding of each candidate by reading it once; bounded memory, nothing is kept but the answers. */
import { native } from "../native/binding.js";
import { batches } from "./copy-rows.js";
import { type Candidate, candidateBytes, type Encoding, type Encodings, windowEncoding } from "./encoding.js";
import { rangeOf } from "./following-range.js";
import { openRows } from "./open-rows.js";
import { type RunOptions, runTasks } from "./pool.js";
import type { RowReader, Workspace } from "./row-source.js";
import type { Control } from "./task.js";

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

/** Stops reading as soon as the answer is no. */
function encodingOf(candidate: Candidate, workspace: Workspace, control: Control): Encoding | undefined {
  const { source, sourceFormat, columns } = candidate;
  const rows = openRows(source, workspace);
  let encoding = windowEncoding(columns, 0);
  let escapes = 0;
  let left = candidateBytes(candidate);
  for (const batch of encoding ? batches(rows) : []) {
    control.throwIfStopped();
    const weights = asBf16(sourceFormat, batch, rows, columns);
    if (!weights) {
      encoding = undefined;
      break;
    }
    escapes = Math.max(escapes, native().mostEscapes(weights, batch.count, columns));
    encoding = windowEncoding(columns, escapes);
    if (!encoding) break;
    control.addBytes(batch.bytes.length);
    left -= batch.bytes.length;
  }
  control.addBytes(left);
  return encoding;
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
