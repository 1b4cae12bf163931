#!/usr/bin/env node
import { openLayerStore } from "../dist/checkpoint/layer-store.js";
/**
 * Long prompts beside what their arithmetic allows: each in a memory cgroup of exactly --memory, the page cache dropped first.
 * Linux, root.
 *
 *   node tools/long-prompts.mjs STORE --memory 700MiB [--tokens 8192,16384,32768] [--new-tokens 4] [--kv-dtype f32|bf16|8bit]
 *     [--precision fast|exact] [--disk 1GB] [--json]
 *
 * --disk: bytes a second that may be read; none by default.
 *
 * Arithmetic is counted from the shapes of the model: products in proportion to the tokens, attention with their square. Its
 * rates are over the time of these ops, and the share is of what the same threads reach with float32 multiply-adds in
 * registers, measured before and after. By processor time (of all threads, over their number), what else the machine does
 * counts less. A prompt makes one pass, or several where all weights then fit beside them; what it reads includes what is
 * held from then on. The floor of a token after it is all bytes that it brought from the disk, KV cache included, at the raw
 * rate of direct reads of the store.
 */
import { formatTable } from "../dist/cli/table.js";
import { promptOperations } from "../dist/models/operations.js";
import { architectureOf } from "../dist/models/registry.js";
import { formatBytes, formatCount, formatDuration, formatNumber, formatRate, parseBytes } from "../dist/units.js";
import { cgroupProblem, runCapped } from "./measure/cgroup.mjs";
import { numberOption, readOptions, refuse } from "./options.mjs";

const child = new URL("./measure/long-prompt.mjs", import.meta.url).pathname;

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    memory: { type: "string" },
    tokens: { type: "string", default: "8192,16384,32768" },
    "new-tokens": { type: "string", default: "4" },
    "kv-dtype": { type: "string", default: "bf16" },
    precision: { type: "string", default: "fast" },
    disk: { type: "string", default: "0" },
    json: { type: "boolean", default: false },
  },
});
const impossible = cgroupProblem();
const [store] = positionals;
if (impossible !== undefined || store === undefined || values.memory === undefined) {
  refuse(impossible ?? "name a layer store and --memory");
}

const sum = (numbers) => numbers.reduce((total, value) => total + value, 0);
const mean = (numbers) => sum(numbers) / numbers.length;

async function measure(promptTokens) {
  const memoryBytes = parseBytes(values.memory, "memory");
  const newTokens = numberOption(values, "new-tokens");
  const load = {
    memory: memoryBytes,
    maxSeqLen: promptTokens + newTokens,
    kvDtype: values["kv-dtype"],
    precision: values.precision,
    profilingMode: true,
  };
  const request = JSON.stringify({ store, load, promptTokens, newTokens });
  const { stdout, stderr, code, peakBytes, oomKills } = await runCapped([process.execPath, child, request], {
    memoryBytes,
    readBytesPerSecond: values.disk === "0" ? undefined : parseBytes(values.disk, "disk"),
    file: store,
  });
  if (oomKills > 0 || code !== 0) return { problem: oomKills > 0 ? "killed for memory" : stderr.trim() };
  const outcome = JSON.parse(stdout);
  if (outcome.message !== undefined) return { problem: outcome.message };
  return { ...figuresOf(promptTokens, outcome), memoryBytes, cgroupPeakBytes: peakBytes };
}

/** Counts of the shapes beside the times of the ops. */
function figuresOf(promptTokens, { run, profile, threads, processorSeconds, diskRates, peakRates }) {
  const { before, after, tokenSeconds, prefillSeconds } = run;
  const activities = profile.prompt.stages.flatMap((stage) => stage.activities);
  const secondsOf = (name) =>
    sum(activities.filter(({ activity }) => activity.startsWith(name)).map((op) => op.seconds));
  const waits = profile.prompt.stages.map(({ diskWaitSeconds }) => diskWaitSeconds);
  const { linear, attention } = promptOperations(architecture, promptTokens);
  return {
    promptTokens,
    promptSeconds: prefillSeconds,
    threads,
    processorSeconds,
    passes: profile.prompt.passes,
    weightBytesRead: before.bytesStreamed - before.kvBytesRead,
    weightBytes: before.weightBytes,
    linearOperations: linear,
    linearSeconds: secondsOf("matmul"),
    attentionOperations: attention,
    attentionSeconds: secondsOf("attention"),
    diskWaitSeconds: sum(waits),
    peakOperationsPerSecond: mean(peakRates),
    kvBytes: before.kvBytes,
    kvSpilledBytes: before.kvSpilledBytes,
    heldBytes: after.heldBytes,
    kvBytesWritten: after.kvBytesWritten,
    kvWriteSeconds: after.kvWriteSeconds,
    kvBytesRead: after.kvBytesRead,
    kvReadSeconds: after.kvReadSeconds,
    secondsPerToken: mean(tokenSeconds),
    computeSecondsPerToken: (after.computeSeconds - before.computeSeconds) / tokenSeconds.length,
    bytesPerToken: (after.bytesStreamed - before.bytesStreamed) / tokenSeconds.length,
    kvBytesPerToken: (after.kvBytesRead - before.kvBytesRead) / tokenSeconds.length,
    diskRooflineBytesPerSecond: mean(diskRates),
  };
}

function report(figures) {
  if (figures.problem !== undefined) return figures.problem;
  const arithmetic = (operations, seconds) => {
    const rate = operations / seconds;
    const share = `${((100 * rate) / figures.peakOperationsPerSecond).toFixed(0)} %`;
    return `${formatNumber(operations / 1e12)} TFLOP in ${formatDuration(seconds)}: ${formatNumber(rate / 1e9)} GFLOP/s, ${share}`;
  };
  const file = (bytes, seconds) =>
    bytes === 0 ? "nothing" : `${formatBytes(bytes)} at ${formatRate(bytes / seconds)}`;
  const { promptTokens, promptSeconds, passes, secondsPerToken, bytesPerToken } = figures;
  const floor = bytesPerToken / figures.diskRooflineBytesPerSecond;
  const operations = figures.linearOperations + figures.attentionOperations;
  return formatTable([
    ["prompt", `${formatCount(promptTokens)} tokens in ${formatDuration(promptSeconds)}`],
    [
      "passes",
      `${passes}: ${formatBytes(figures.weightBytesRead)} read of ${formatBytes(figures.weightBytes)} of weights`,
    ],
    ["products", arithmetic(figures.linearOperations, figures.linearSeconds)],
    ["attention", arithmetic(figures.attentionOperations, figures.attentionSeconds)],
    ["all of it", arithmetic(operations, promptSeconds)],
    [
      "the same",
      `by processor time, with the tokens after it: ${arithmetic(operations, figures.processorSeconds / figures.threads)}`,
    ],
    ["float32 peak", `${formatNumber(figures.peakOperationsPerSecond / 1e9)} GFLOP/s`],
    ["waiting for disk", formatDuration(figures.diskWaitSeconds)],
    ["cgroup's peak", `${formatBytes(figures.cgroupPeakBytes)} of ${formatBytes(figures.memoryBytes)}`],
    ["KV cache", `${formatBytes(figures.kvBytes)} in memory, ${formatBytes(figures.kvSpilledBytes)} in a file`],
    ["to its file", file(figures.kvBytesWritten, figures.kvWriteSeconds)],
    ["from its file", file(figures.kvBytesRead, figures.kvReadSeconds)],
    [
      "a token after it",
      `${formatDuration(secondsPerToken)}; ${formatBytes(bytesPerToken)} from disk (${formatBytes(figures.kvBytesPerToken)} of KV), computing ${formatDuration(figures.computeSecondsPerToken)}`,
    ],
    [
      "its floor",
      `${formatDuration(floor)} at ${formatRate(figures.diskRooflineBytesPerSecond)}: ${(floor / secondsPerToken).toFixed(3)}`,
    ],
  ]);
}

const { manifest, filePath } = await openLayerStore(store);
const architecture = architectureOf(manifest.config, filePath("config.json"));
for (const tokens of values.tokens.split(",").map(Number)) {
  const figures = await measure(tokens);
  console.log(values.json ? JSON.stringify(figures) : `${report(figures)}\n`);
}
