#!/usr/bin/env node
/**
 * How close decompose comes to what bounds it, all measured in one run:
 *
 *   node tools/decompose-limits.mjs CHECKPOINT [--compression none,8bit,4bit] [--directory DIRECTORY] [--json]
 *
 * - read: direct reads of the checkpoint's weights
 * - write: direct writes of a new file, made durable
 * - quantize: bytes of bf16 that all cores together quantize from memory to memory, before and after
 * - decompose: bytes of the checkpoint a second, and `fraction`, the share of the rate that the slowest of the three allows
 * - copy: bytes of the checkpoint that the same reads and writes, running at once, would carry; a disk that serves both
 *   from one queue is slower then than the slower of the two
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

  /** Quantizes the same rows for QUANTIZE_SECONDS. */
  quantize({ format }) {
    const { rows, columns, block } = SHAPE;
    const source = weights(rows * columns);
    const output = new Uint8Array(rows * native().rowBytes(format, columns, block));
    let bytes = 0;
    const started = performance.now();
    for (; performance.now() - started < QUANTIZE_SECONDS * 1000; bytes += source.length) {
      native().quantize("bf16", source, rows, columns, format, block, output);
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

async function quantizeRate(format) {
  if (format === "none") return Number.POSITIVE_INFINITY;
  const rates = Array.from({ length: availableParallelism() }, () => runInThread("quantize", { format }));
  return (await Promise.all(rates)).reduce((sum, rate) => sum + rate, 0);
}

function shardsOf(checkpoint) {
  const files = readdirSync(checkpoint).filter((name) => /\.(safetensors|bin|gguf)$/.test(name));
  return files.map((name) => {
    const file = path.join(checkpoint, name);
    return { file, size: statSync(file).size };
  });
}

async function measure(checkpoint, compression, directory) {
  const shards = shardsOf(checkpoint);
  const scratch = path.join(directory, "scratch");
  const read = await runInThread("read", { files: shards });
  const quantizeBefore = await quantizeRate(compression);

  const store = path.join(directory, compression);
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const { manifest } = await decompose({ checkpoint, store, compression });
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  rmSync(store, { recursive: true });

  const quantize = (quantizeBefore + (await quantizeRate(compression))) / 2;
  const bytesIn = shards.reduce((sum, { size }) => sum + size, 0);
  const bytesOut = manifest.files.reduce((sum, { size }) => sum + size, 0);
  const write = await runInThread("write", { file: scratch, bytes: bytesOut });
  const writing = runInThread("write", { file: scratch, bytes: bytesOut });
  const readBeside = await runInThread("read", { files: shards });
  const writeBeside = await writing;
  const floor = Math.max(bytesIn / read, bytesOut / write, bytesIn / quantize);
  return {
    compression,
    bytesIn,
    bytesOut,
    seconds,
    cpuSeconds: (user + system) / 1e6,
    read,
    write,
    quantize,
    decompose: bytesIn / seconds,
    fraction: floor / seconds,
    copy: bytesIn / Math.max(bytesIn / readBeside, bytesOut / writeBeside),
  };
}

async function main() {
  const { values, positionals } = readOptions({
    allowPositionals: true,
    options: {
      compression: { type: "string", default: "none,8bit,4bit" },
      directory: { type: "string" },
      json: { type: "boolean" },
    },
  });
  if (positionals.length !== 1) refuse("name a checkpoint");
  const checkpoint = path.resolve(positionals[0]);
  const directory = mkdtempSync(path.join(path.resolve(values.directory ?? path.dirname(checkpoint)), "limits-"));
  try {
    const rows = [];
    for (const compression of values.compression.split(","))
      rows.push(await measure(checkpoint, compression, directory));
    console.log(values.json ? JSON.stringify(rows) : rows.map(describe).join("\n"));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function describe({ compression, bytesIn, bytesOut, seconds, cpuSeconds, fraction, ...rates }) {
  const limits = ["read", "write", "quantize", "copy"].filter((name) => Number.isFinite(rates[name]));
  return [
    `${compression}: ${formatBytes(bytesIn)} to ${formatBytes(bytesOut)} in ${seconds.toFixed(2)} s (${cpuSeconds.toFixed(2)} s of processor)`,
    `decompose ${formatRate(rates.decompose)}`,
    ...limits.map((name) => `${name} ${formatRate(rates[name])}`),
    `fraction ${fraction.toFixed(2)}`,
  ].join(", ");
}

if (isMainThread) await main();
else parentPort.postMessage(inThread[workerData.task](workerData.parameters));
