/** The spans of a model's trace as Chrome trace JSON ("Trace Event Format"), which Perfetto and chrome://tracing show. */
import { writeFileAtomic } from "../checkpoint/file-io.js";
import { native } from "../native/binding.js";

/** About 25 tokens of a model that streams 6 GB for each. */
export const TRACE_SPANS = 2 ** 17;
/** As the addon keeps them. */
const SPAN_BYTES = 40;
/** Of JavaScript while a file is written, and sums. */
const WRITING_BYTES = 16 * 2 ** 20;
export const TRACE_BYTES = TRACE_SPANS * SPAN_BYTES + WRITING_BYTES;

const SPANS_A_PART = 512;
const SPAN_FIELDS = 8;
/** Rows: a track has one for each lane, that is for each of its spans that overlap. */
const LANES = 256;
const TRACKS = [
  "JavaScript",
  "pass thread",
  "compute stream",
  "copy stream",
  "embedding rows",
  "experts",
  "decoders",
  "KV cache",
];

/** Of a model created with a trace. `stages`: names of all stages. */
export async function writeTrace(
  model: number,
  file: string,
  stages: readonly string[],
): Promise<{ spans: number; dropped: number }> {
  const written = { spans: 0, dropped: 0 };
  const stageNames = stages.map((name) => JSON.stringify(name));
  await writeFileAtomic(file, traceParts(model, stageNames, written));
  return written;
}

/** `stages` are JSON already. */
function* traceParts(model: number, stages: readonly string[], written: { spans: number; dropped: number }) {
  const addon = native();
  const names = addon.activityNames().map((name) => JSON.stringify(name));
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
      text += spanEvent(fields, at, names, stages, rows);
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

/** Put together by hand: objects for a hundred thousand spans would outgrow what the budget leaves JavaScript. */
function spanEvent(
  fields: Float64Array,
  at: number,
  names: readonly string[],
  stages: readonly string[],
  rows: Map<number, string>,
): string {
  const field = (index: number) => fields[at + index] as number;
  const [track, lane, activity, stage] = [field(0), field(1), field(2), field(3)];
  const row = track * LANES + lane;
  if (!rows.has(row)) rows.set(row, rowName(track, lane));
  const begin = field(4);
  const nanoseconds = field(5) - begin;
  const name = `"name":${names[activity]}`;
  const time = `"ts":${begin / 1000},"dur":${nanoseconds / 1000}`;
  const args = [];
  if (stage >= 0) args.push(`"stage":${stages[stage]}`);
  if (field(6) > 0) args.push(`"bytes":${field(6)},"GB/s":${rate(field(6), nanoseconds)}`);
  if (field(7) > 0) args.push(`"operations":${field(7)},"GFLOP/s":${rate(field(7), nanoseconds)}`);
  return `,\n{"ph":"X","pid":1,"tid":${row},${name},${time},"args":{${args.join()}}}`;
}

function rowName(track: number, lane: number): string {
  const name = TRACKS[track] ?? `reader ${track - TRACKS.length + 1}`;
  return lane === 0 ? name : `${name}, ${lane + 1}`;
}

function rate(amount: number, nanoseconds: number): number {
  return Number((amount / Math.max(nanoseconds, 1)).toPrecision(4));
}
