#!/usr/bin/env node
/**
 * Speed of the addon's codecs and kernels, with tinybench, each beside the yardstick of the same run:
 *
 *   npm run bench [-- --json] [-- --seconds 0.5] [-- --threads 2] [-- --formats bf16,8bit,4bit]
 *
 * Kernels are measured for bf16, its lossless bf16_window, 8bit, 4bit and the formats of checkpoints that come quantized; --formats chooses.
 *
 * - codecs, on one core: bytes of input a second, beside a copy from memory to memory
 * - decode (one token): bytes of weights a second, and their share of what the threads read from memory
 * - prefill (512 tokens): floating point operations a second, and their share of what the threads do at most without memory:
 *   of float32 multiply-adds for --precision exact, else of bfloat16's where the processor has them
 */
import os from "node:os";
import { Bench } from "tinybench";
import { formatTable } from "../dist/cli/table.js";
import { native } from "../dist/native/binding.js";
import { formatNumber, formatRate } from "../dist/units.js";
import { numberOption, readOptions, refuse } from "./options.mjs";

const addon = native();
const block = 64;
const codecShape = { rows: 1024, columns: 8192 };
const matmulShape = { rows: 4096, columns: 14336 };
/** Format and columns that share a scale, or escapes of a row; the formats of GGUF have blocks of their own. */
const formats = new Map([
  ["bf16", block],
  ["bf16_window", 360],
  ["8bit", block],
  ["4bit", block],
  ["uint4", 128],
  ["uint8", 128],
  ["fp8", 128],
  ["mxfp4", 32],
  ["nf4", 64],
  ["q8_0", 32],
  ["q4_0", 32],
  ["q4_k", 256],
  ["q6_k", 256],
]);
const prefillTokens = 512;
const memoryBytes = 512 * 2 ** 20;

/** Rows of bf16 weights of about N(0, 0.02): a sum of uniforms, from a seeded generator. */
function randomWeights(count) {
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  const weights = new Uint16Array(count);
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  for (let i = 0; i < count; i++) {
    float[0] = 0.035 * (uniform() + uniform() + uniform() + uniform());
    weights[i] = bits[0] >>> 16;
  }
  return new Uint8Array(weights.buffer);
}

/** Each case is its name, the bytes that one call takes in, and the call. */
function codecCases() {
  const { rows, columns } = codecShape;
  const weights = randomWeights(rows * columns);
  const copy = new Uint8Array(weights.length);
  const floats = new Float32Array(rows * columns);
  const cases = [
    { name: "copy memory", bytes: weights.length, call: () => copy.set(weights) },
    { name: "crc32c", bytes: weights.length, call: () => addon.crc32c(weights) },
    {
      name: "widen bf16 to f32",
      bytes: weights.length,
      call: () => addon.dequantize("bf16", weights, rows, columns, block, floats),
    },
  ];
  const escapes = addon.mostEscapes(weights, rows, columns);
  const encoded = new Uint8Array(rows * addon.rowBytes("bf16_window", columns, escapes));
  cases.push(
    { name: "count escapes", bytes: weights.length, call: () => addon.mostEscapes(weights, rows, columns) },
    {
      name: "encode bf16 without loss",
      bytes: weights.length,
      call: () => addon.encodeWindows(weights, rows, columns, escapes, encoded),
    },
  );
  for (const format of ["8bit", "4bit"]) {
    const packed = new Uint8Array(rows * addon.rowBytes(format, columns, block));
    const quantize = () => addon.quantize("bf16", weights, rows, columns, format, block, packed);
    if (!quantize()) throw new Error(`The random weights could not be quantized to ${format}.`);
    cases.push({ name: `quantize bf16 to ${format}`, bytes: weights.length, call: quantize });
    const dequantize = () => addon.dequantize(format, packed, rows, columns, block, floats);
    cases.push({ name: `dequantize ${format}`, bytes: packed.length, call: dequantize });
  }
  return cases;
}

/** A case that the addon times itself: `rate` gives bytes a second, tinybench gets the duration of `bytes`. */
function timedByAddon(name, bytes, rate, facts) {
  return { name, bytes, ...facts, call: () => ({ overriddenDuration: (bytes * 1000) / rate() }) };
}

function kernelCases(threadCounts, names, seconds) {
  const { rows, columns } = matmulShape;
  const cases = [];
  for (const threads of threadCounts) {
    const suffix = `${threads} ${threads === 1 ? "thread" : "threads"}`;
    const memory = `read memory, ${suffix}`;
    cases.push(timedByAddon(memory, memoryBytes, () => addon.measureMemoryRate(memoryBytes, threads, seconds)));
    const peaks = { exact: `float32 peak, ${suffix}`, fast: `bfloat16 peak, ${suffix}` };
    const peak = (name, kind) => {
      const rate = () => addon.measurePeakRate(kind, threads, seconds);
      cases.push(timedByAddon(name, 1, rate, { operationsPerByte: 1 }));
    };
    peak(peaks.exact, "f32");
    if (addon.measurePeakRate("bf16", 1, 0.01) > 0) peak(peaks.fast, "bf16");
    else peaks.fast = peaks.exact;
    for (const format of names) {
      const block = formats.get(format);
      const rowBytes = addon.rowBytes(format, columns, block);
      const measure = (tokens, exact) =>
        addon.measureMatmulRate(format, rows, columns, block, tokens, threads, seconds, exact);
      for (const precision of ["fast", "exact"]) {
        const add = (name, tokens, facts) => {
          const rate = () => measure(tokens, precision === "exact");
          cases.push(timedByAddon(`${name} ${format} ${precision}, ${suffix}`, rows * rowBytes, rate, facts));
        };
        add("decode", 1, { yardstick: memory });
        const operationsPerByte = (2 * prefillTokens * columns) / rowBytes;
        add(`prefill ${prefillTokens}`, prefillTokens, { operationsPerByte, peak: peaks[precision] });
      }
    }
  }
  return cases;
}

async function run(cases, options) {
  const bench = new Bench({ warmup: false, ...options });
  for (const { name, call } of cases) bench.add(name, call);
  await bench.run();
  const rates = new Map();
  return cases.map(({ name, bytes, yardstick, operationsPerByte, peak }) => {
    const { result } = bench.getTask(name);
    if (result.state !== "completed") throw result.error ?? new Error(`${name} did not complete.`);
    const bytesPerSecond = (bytes * 1000) / result.latency.p50;
    rates.set(name, bytesPerSecond);
    return {
      name,
      bytesPerSecond,
      ...(yardstick && { shareOfMemoryRate: bytesPerSecond / rates.get(yardstick) }),
      ...(operationsPerByte && { operationsPerSecond: bytesPerSecond * operationsPerByte }),
      ...(peak && { shareOfPeak: (bytesPerSecond * operationsPerByte) / rates.get(peak) }),
    };
  });
}

function describe({ bytesPerSecond, shareOfMemoryRate, operationsPerSecond, shareOfPeak }) {
  if (operationsPerSecond) {
    const share = shareOfPeak ? `, ${Math.round(100 * shareOfPeak)} % of the peak` : "";
    return `${formatNumber(operationsPerSecond / 1e9)} GFLOP/s${share}`;
  }
  const share = shareOfMemoryRate ? `, ${Math.round(100 * shareOfMemoryRate)} % of the memory's rate` : "";
  return formatRate(bytesPerSecond) + share;
}

const { values } = readOptions({
  options: {
    json: { type: "boolean", default: false },
    seconds: { type: "string", default: "0.5" },
    threads: { type: "string", default: String(os.availableParallelism()) },
    formats: { type: "string", default: [...formats.keys()].join() },
  },
});
const seconds = numberOption(values, "seconds");
const threads = numberOption(values, "threads", 1);
const names = values.formats.split(",");
const unknown = names.find((name) => !formats.has(name));
if (unknown !== undefined) refuse(`--formats takes ${[...formats.keys()].join(", ")}, not ${unknown}`);
const results = [
  ...(await run(codecCases(), { time: seconds * 1000, iterations: 3 })),
  // One sample each: the addon repeats within it, and fills half a gigabyte before it starts.
  ...(await run(kernelCases([...new Set([1, threads])], names, seconds), { time: 0, iterations: 1 })),
];
if (values.json) console.log(JSON.stringify(results));
else console.log(formatTable(results.map((result) => [result.name, describe(result)])));
