#!/usr/bin/env node
/**
 * Speed of the addon's codecs on one core, in bytes a second of their input, with tinybench.
 *
 *   npm run bench [-- --json] [-- --seconds 0.5]
 *
 * The first line is the yardstick of the same run: what one core copies from memory to memory.
 */
import { parseArgs } from "node:util";
import { Bench } from "tinybench";
import { formatTable } from "../dist/cli/table.js";
import { native } from "../dist/native/binding.js";
import { formatRate } from "../dist/units.js";

const rows = 1024;
const columns = 8192;
const block = 64;
const bf16Bytes = 2;

/** Rows of bf16 weights of about N(0, 0.02): a sum of uniforms, from a seeded generator. */
function randomWeights() {
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  const weights = new Uint16Array(rows * columns);
  let state = 1;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  for (let i = 0; i < weights.length; i++) {
    float[0] = 0.035 * (uniform() + uniform() + uniform() + uniform());
    weights[i] = bits[0] >>> 16;
  }
  return new Uint8Array(weights.buffer);
}

/** Each case is what it is called, the bytes that one call takes in, and the call. */
function cases() {
  const addon = native();
  const weights = randomWeights();
  const copy = new Uint8Array(weights.length);
  const floats = new Float32Array(rows * columns);
  const list = [
    { name: "copy memory", bytes: weights.length, call: () => copy.set(weights) },
    { name: "crc32c", bytes: weights.length, call: () => addon.crc32c(weights) },
  ];
  for (const format of ["8bit", "4bit"]) {
    const packed = new Uint8Array(rows * addon.rowBytes(format, columns, block));
    const quantize = () => addon.quantize("bf16", weights, rows, columns, format, block, packed);
    if (!quantize()) throw new Error(`The random weights could not be quantized to ${format}.`);
    list.push({ name: `quantize bf16 to ${format}`, bytes: weights.length, call: quantize });
    const dequantize = () => addon.dequantize(format, packed, rows, columns, block, floats);
    list.push({ name: `dequantize ${format}`, bytes: packed.length, call: dequantize });
  }
  const widen = () => addon.dequantize("bf16", weights, rows, columns, block, floats);
  list.push({ name: "widen bf16 to f32", bytes: rows * columns * bf16Bytes, call: widen });
  return list;
}

const { values } = parseArgs({
  options: { json: { type: "boolean", default: false }, seconds: { type: "string", default: "0.5" } },
});
const bench = new Bench({ time: Number(values.seconds) * 1000, warmupTime: 100, iterations: 3, warmupIterations: 1 });
const list = cases();
for (const { name, call } of list) bench.add(name, call);
await bench.run();

const results = list.map(({ name, bytes }) => {
  const { result } = bench.getTask(name);
  if (result.state !== "completed") throw result.error ?? new Error(`${name} did not complete.`);
  return { name, bytesPerSecond: (bytes * 1000) / result.latency.p50, runs: result.latency.samplesCount };
});
if (values.json) console.log(JSON.stringify(results));
else console.log(formatTable(results.map(({ name, bytesPerSecond }) => [name, formatRate(bytesPerSecond)])));
