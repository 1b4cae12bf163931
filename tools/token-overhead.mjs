#!/usr/bin/env node
/**
 * What a token of a held model costs beside its pass: JavaScript, and getting from a pass to JavaScript and back.
 *
 *   node tools/token-overhead.mjs [STORE ...] [--memory SIZE] [--first 60] [--tokens 500]
 *
 * Without stores: tiny random models with vocabularies of 32,000 and 128,000 tokens, whose passes take next to no time. Each
 * row is a process of its own: microseconds a token between passes, of the first tokens after loading, while the JavaScript
 * engine still interprets, and later; and what a pass takes. Greedy passes are enqueued ahead; others wait for JavaScript.
 *
 * The floor of the latter is what it takes one thread to wake another that sleeps, and that one the first, in the last row:
 * again and again, and after sleeping as long as a pass of the last store takes.
 */
import { execFile, execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { formatTable } from "../dist/cli/table.js";
import { numberOption, readOptions } from "./options.mjs";

const tools = path.dirname(fileURLToPath(import.meta.url));
const tinyShape = "--hidden 64 --intermediate 128 --heads 4 --kv-heads 2 --layers 2 --compression none";
const vocabularies = [32_000, 128_000];
const samplers = {
  greedy: {},
  "repetition penalty 1.1": { repetitionPenalty: 1.1 },
  "temperature 0.8, top-k 40, top-p 0.95": { temperature: 0.8, topK: 40, topP: 0.95 },
};

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    memory: { type: "string", default: "8GiB" },
    first: { type: "string", default: "60" },
    tokens: { type: "string", default: "500" },
  },
});
const counts = { firstTokens: numberOption(values, "first", 1), tokens: numberOption(values, "tokens", 1) };

function makeTinyStores(folder) {
  return vocabularies.map((vocabulary) => {
    const store = path.join(folder, `vocabulary-${vocabulary}`);
    const shape = [...tinyShape.split(" "), "--vocab", String(vocabulary)];
    execFileSync(process.execPath, [path.join(tools, "make-store.mjs"), store, ...shape], { stdio: "ignore" });
    return store;
  });
}

async function measure(store, options) {
  const request = JSON.stringify({ store, memory: values.memory, ...counts, options });
  const script = path.join(tools, "measure", "token-overhead.mjs");
  const { stdout } = await promisify(execFile)(process.execPath, [script, request]);
  return JSON.parse(stdout);
}

/** Median microseconds from waking another thread until it has woken this one, which sleeps meanwhile. */
async function switchMicroseconds(pauseMilliseconds, rounds) {
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const code = `
    const { workerData: shared } = require("node:worker_threads");
    for (let round = 1; ; round++) {
      Atomics.wait(shared, 0, round - 1);
      if (Atomics.load(shared, 0) < 0) break;
      Atomics.store(shared, 1, round);
      Atomics.notify(shared, 1);
    }`;
  const worker = new Worker(code, { eval: true, workerData: shared });
  await new Promise((resolve) => worker.once("online", resolve));
  const idle = new Int32Array(new SharedArrayBuffer(4));
  const times = [];
  for (let round = 1; round <= rounds; round++) {
    Atomics.wait(idle, 0, 0, pauseMilliseconds);
    const begin = performance.now();
    Atomics.store(shared, 0, round);
    Atomics.notify(shared, 0);
    Atomics.wait(shared, 1, round - 1);
    times.push((performance.now() - begin) * 1000);
  }
  Atomics.store(shared, 0, -1);
  Atomics.notify(shared, 0);
  await worker.terminate();
  return times.sort((a, b) => a - b)[rounds >> 1];
}

const micro = (value) => value.toFixed(value < 10 ? 1 : 0);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-overhead-"));
try {
  const stores = positionals.length > 0 ? positionals : makeTinyStores(folder);
  const rows = [["us a token", `first ${counts.firstTokens}`, "later", "a pass"]];
  let pass = 0;
  for (const store of stores) {
    for (const [name, options] of Object.entries(samplers)) {
      const { first, later } = await measure(store, options);
      pass = later.inPass;
      rows.push([`${path.basename(store)}, ${name}`, micro(first.between), micro(later.between), micro(later.inPass)]);
    }
  }
  const atOnce = await switchMicroseconds(0, 500);
  const asleep = await switchMicroseconds(pass / 1000, 20);
  rows.push(["to another thread and back: at once, after such a pass", micro(atOnce), micro(asleep)]);
  console.log(formatTable(rows.map(([name, ...cells]) => [name, cells.map((cell) => cell.padStart(9)).join("")])));
} finally {
  fs.rmSync(folder, { recursive: true });
}
