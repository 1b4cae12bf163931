#!/usr/bin/env node
/**
 * How close decompose comes to what bounds it, all measured in one run:
 *
 *   node tools/decompose-limits.mjs CHECKPOINT [--compression none,lossless,8bit,4bit] [--directory DIRECTORY] [--json]
 *
 * - read: direct reads of the checkpoint's weights
 * - write: direct writes of a new file, made durable
 * - quantize: bytes of bf16 that all cores together quantize (lossless: survey and encode) from memory to memory, before and after
 * - copy: bytes of the checkpoint a second when the same reads and writes run at once, before and after: less than either rate
 *   where one device serves both
 * - decompose: bytes of the checkpoint a second. `fraction` is its share of what the slowest of read, write and quantize
 *   allows, `shared` of what the slower of copy and quantize allows.
 *
 * `lossless` reads everything once more, to survey it: that time counts in both floors.
 *
 * Stores are written to DIRECTORY (the checkpoint's parent if absent) and removed.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { decompose } from "../dist/decompose/decompose.js";
import { native } from "../dist/native/binding.js";
import { formatBytes, formatRate } from "../dist/units.js";
import { readOptions, refuse } from "./options.mjs";

const PIECE_BYTES = 4 * 2 ** 20;
const QUANTIZE_SECONDS = 1;
const SHAPE = { rows: 256, columns: 4096, block: 64 };
/** Bytes of a store over those of its bf16 checkpoint, about. */
const USUAL_SHARES = { none: 1, lossless: 0.705, "8bit": 0.516, "4bit": 0.289 };

const inThread = {
  /** Reads every file once. */
  read({ files }) {
    const [memory] = native().createTransfer(1, PIECE_BYTES).buffers;
    const started = performance.now();
    let bytes = 0;
    for (const { file, size } of files) {
      const descriptor = openSync(file, constants.O_RDONLY | (constants.O_DIRECT ?? 0));
      for (let offset = 0; offset < size; offset += PIECE_BYTES) {
        bytes += readSync(descriptor, memory, 0, PIECE_BYTES, offset);
      }
      closeSync(descriptor);
    }
    return (bytes * 1000) / (performance.now() - started);
  },

  /** Writes a new file of about `bytes` and makes it durable. */
  write({ file, bytes }) {
    const memory = randomBytes(PIECE_BYTES);
    const descriptor = openSync(file, constants.O_WRONLY | constants.O_CREAT | (constants.O_DIRECT ?? 0));
    const started = performance.now();
    let done = 0;
    while (done < bytes) done += writeSync(descriptor, memory, 0, PIECE_BYTES, done);
    fsyncSync(descriptor);
    const seconds = (performance.now() - started) / 1000;
    closeSync(descriptor);
    rmSync(file);
    return done / seconds;
  },

  /** Quantizes the same rows for QUANTIZE_SECONDS, or surveys and encodes them. */
  quantize({ compression }) {
    const { rows, columns } = SHAPE;
    const source = weights(rows * columns);
    const isLossless = compression === "lossless";
    const format = isLossless ? "bf16_window" : compression;
    const block = isLossless ? native().mostEscapes(source, rows, columns) : SHAPE.block;
    const output = new Uint8Array(rows * native().rowBytes(format, columns, block));
    let bytes = 0;
    const started = performance.now();
    for (; performance.now() - started < QUANTIZE_SECONDS * 1000; bytes += source.length) {
      if (isLossless) {
        native().encodeWindows(source, rows, columns, native().mostEscapes(source, rows, columns), output);
      } else {
        native().quantize("bf16", source, rows, columns, format, block, output);
      }
    }
    return (bytes * 1000) / (performance.now() - started);
  },
};

function randomBytes(bytes) {
  const memory = native().createTransfer(1, bytes).buffers[0];
  const words = new Uint32Array(memory.buffer, 0, bytes / 4);
  for (let i = 0, state = 1; i < words.length; i++) words[i] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return memory;
}

/** bf16 of about N(0, 0.02). */
function weights(count) {
  const random = new Uint32Array(randomBytes(16 * count).buffer);
  const floats = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const sum = random[4 * i] + random[4 * i + 1] + random[4 * i + 2] + random[4 * i + 3];
    floats[i] = (sum / 2 ** 32 - 2) * 0.035;
  }
  const bits = new Uint32Array(floats.buffer);
  return new Uint8Array(Uint16Array.from(bits, (word) => word >>> 16).buffer);
}

function runInThread(task, parameters) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { task, parameters } });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

async function quantizeRate(compression) {
  if (compression === "none") return Number.POSITIVE_INFINITY;
  const rates = Array.from({ length: availableParallelism() }, () => runInThread("quantize", { compression }));
  return (await Promise.all(rates)).reduce((sum, rate) => sum + rate, 0);
}

/** Seconds until the shards have been read and `bytes` written, both at once. */
async function copySeconds(shards, file, bytes) {
  const [read, write] = await Promise.all([
    runInThread("read", { files: shards }),
    runInThread("write", { file, bytes }),
  ]);
  return Math.max(shards.reduce((sum, { size }) => sum + size, 0) / read, bytes / write);
}

function shardsOf(checkpoint) {
  const files = readdirSync(checkpoint).filter((name) => /\.(safetensors|bin|gguf)$/.test(name));
  return files.map((name) => {
    const file = path.join(checkpoint, name);
    return { file, size: statSync(file).size };
  });
}

const mean = (a, b) => (a + b) / 2;

async function measure(checkpoint, compression, directory) {
  const shards = shardsOf(checkpoint);
  const bytesIn = shards.reduce((sum, { size }) => sum + size, 0);
  const scratch = path.join(directory, "scratch");
  const quantizeBefore = await quantizeRate(compression);
  const read = await runInThread("read", { files: shards });
  const copyBefore = await copySeconds(shards, scratch, bytesIn * USUAL_SHARES[compression]);

  const store = path.join(directory, compression);
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const { manifest } = await decompose({ checkpoint, store, compression });
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  rmSync(store, { recursive: true });

  const bytesOut = manifest.files.reduce((sum, { size }) => sum + size, 0);
  const copy = mean(copyBefore, await copySeconds(shards, scratch, bytesOut));
  const write = await runInThread("write", { file: scratch, bytes: bytesOut });
  const quantize = mean(quantizeBefore, await quantizeRate(compression));
  const surveySeconds = compression === "lossless" ? bytesIn / read : 0;
  const slowest = Math.max(surveySeconds + bytesIn / read, bytesOut / write, bytesIn / quantize);
  return {
    compression,
    bytesIn,
    bytesOut,
    seconds,
    cpuSeconds: (user + system) / 1e6,
    decompose: bytesIn / seconds,
    read,
    write,
    quantize,
    copy: bytesIn / copy,
    fraction: slowest / seconds,
    shared: Math.max(surveySeconds + copy, bytesIn / quantize) / seconds,
  };
}

async function main() {
  const { values, positionals } = readOptions({
    allowPositionals: true,
    options: {
      compression: { type: "string", default: Object.keys(USUAL_SHARES).join() },
      directory: { type: "string" },
      json: { type: "boolean" },
    },
  });
  if (positionals.length !== 1) refuse("name a checkpoint");
  const compressions = values.compression.split(",");
  const unknown = compressions.find((name) => !(name in USUAL_SHARES));
  if (unknown !== undefined) refuse(`there is no compression ${unknown}`);
  const checkpoint = path.resolve(positionals[0]);
  const directory = mkdtempSync(path.join(path.resolve(values.directory ?? path.dirname(checkpoint)), "limits-"));
  try {
    const rows = [];
    for (const compression of compressions) rows.push(await measure(checkpoint, compression, directory));
    console.log(values.json ? JSON.stringify(rows) : rows.map(describe).join("\n"));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function describe({ compression, bytesIn, bytesOut, seconds, cpuSeconds, fraction, shared, ...rates }) {
  const limits = ["decompose", "read", "write", "quantize", "copy"].filter((name) => Number.isFinite(rates[name]));
  return [
    `${compression}: ${formatBytes(bytesIn)} to ${formatBytes(bytesOut)} in ${seconds.toFixed(2)} s (${cpuSeconds.toFixed(2)} s of processor)`,
    ...limits.map((name) => `${name} ${formatRate(rates[name])}`),
    `fraction ${fraction.toFixed(2)}`,
    `shared ${shared.toFixed(2)}`,
  ].join(", ");
}

if (isMainThread) await main();
else parentPort.postMessage(inThread[workerData.task](workerData.parameters));
