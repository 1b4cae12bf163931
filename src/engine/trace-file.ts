/** The spans of a model's trace as Chrome trace JSON ("Trace Event Format"), which Perfetto and chrome://tracing show. */
import { writeFileAtomic } from "../checkpoint/file-io.js";
import { native } from "../native/binding.js";

/** About 25 tokens of a model that streams 6 GB for each. */
export const TRACE_SPANS = 2 ** 17;
/** Spans as the addon keeps them, and sums. */
const SPAN_BYTES = 40;
const SUM_BYTES = 2 ** 20;
export const TRACE_BYTES = TRACE_SPANS * SPAN_BYTES + SUM_BYTES;

const SPANS_A_PART = 4096;
const SPAN_FIELDS = 8;
/** Rows: a track has one for each lane, that is for each of its spans that overlap. */
const LANES = 256;
const TRACKS = ["JavaScript", "pass thread", "compute stream", "copy stream", "embedding rows", "experts"];

/** Of a model created with a trace. `stages`: names of all stages. */
export async function writeTrace(
  model: number,
  file: string,
  stages: readonly string[],
): Promise<{ spans: number; dropped: number }> {
  const written = { spans: 0, dropped: 0 };
  await writeFileAtomic(file, traceParts(model, stages, written));
  return written;
}

function* traceParts(model: number, stages: readonly string[], written: { spans: number; dropped: number }) {
  const addon = native();
  const names = addon.activityNames();
  const rows = new Map<number, string>();
  yield '{"displayTimeUnit":"ms","traceEvents":[\n{"ph":"M","pid":1,"name":"process_name","args":{"name":"layerstream"}}';
  // Spans recorded while this one is written are not waited for.
  const { recorded } = addon.traceSpans(model, 0, 1);
  for (let next = 0; next < recorded; ) {
    const { first, fields } = addon.traceSpans(model, next, Math.min(SPANS_A_PART, recorded - next));
    written.dropped += first - next;
    next = first + fields.length / SPAN_FIELDS;
    let text = "";
    for (let at = 0; at < fields.length && first + at / SPAN_FIELDS < recorded; at += SPAN_FIELDS) {
      text += `,\n${spanEvent(fields.subarray(at, at + SPAN_FIELDS), names, stages, rows)}`;
      written.spans++;
    }
    yield text;
  }
  for (const [row, name] of rows) {
    yield `,\n${JSON.stringify({ ph: "M", pid: 1, tid: row, name: "thread_name", args: { name } })}`;
    yield `,\n${JSON.stringify({ ph: "M", pid: 1, tid: row, name: "thread_sort_index", args: { sort_index: row } })}`;
  }
  yield `\n],"otherData":${JSON.stringify({ spans: written.spans, droppedSpans: written.dropped })}}\n`;
}

function spanEvent(
  fields: Float64Array,
  names: readonly string[],
  stages: readonly string[],
  rows: Map<number, string>,
): string {
  const [track, lane, activity, stage, begin, end, bytes, operations] = fields as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const row = track * LANES + lane;
  if (!rows.has(row)) rows.set(row, rowName(track, lane));
  const nanoseconds = Math.max(end - begin, 1);
  const args: Record<string, string | number> = {};
  if (stage >= 0) args.stage = stages[stage] ?? "";
  if (bytes > 0) Object.assign(args, { bytes, "GB/s": rounded(bytes / nanoseconds) });
  if (operations > 0) Object.assign(args, { operations, "GFLOP/s": rounded(operations / nanoseconds) });
  return JSON.stringify({
    ph: "X",
    pid: 1,
    tid: row,
    name: names[activity],
    ts: begin / 1000,
    dur: (end - begin) / 1000,
    args,
  });
}

function rowName(track: number, lane: number): string {
  const name = TRACKS[track] ?? `reader ${track - TRACKS.length + 1}`;
  return lane === 0 ? name : `${name}, ${lane + 1}`;
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
