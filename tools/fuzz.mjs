#!/usr/bin/env node
/**
 * Feeds damaged and forged files to the readers of file formats.
 *
 *   node tools/fuzz.mjs [--seconds 60] [--cases N] [--seed N] [--target NAME] [--input FILE]
 *
 * --seconds is for all targets together, --cases ends each target earlier, --target picks one (see tools/fuzz/), and
 * --input runs one file instead. A failure is an error that is not a LayerstreamError (or one that says INTERNAL), a
 * case of more than 5 s, or memory that the size of the file does not justify. Each prints its seed and the file that
 * caused it; a run with the same seed makes the same cases. The exit code is 1 if anything failed.
 */
import { readdirSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { makeCase } from "./fuzz/shared/mutate.mjs";
import { numberOption, readOptions, refuse } from "./options.mjs";

const SECONDS_A_CASE = 5;
const MAX_FAILURES = 5;
const HEAP_MIB = 512;

const folder = path.join(import.meta.dirname, "fuzz");
const outputFolder = path.join(import.meta.dirname, "..", "build", "fuzz");
const targetNames = readdirSync(folder)
  .filter((name) => name.endsWith(".mjs"))
  .map((name) => path.basename(name, ".mjs"));

const { values: options } = readOptions({
  options: {
    seconds: { type: "string", default: "60" },
    cases: { type: "string", default: "Infinity" },
    seed: { type: "string", default: String(Date.now() % 2 ** 32) },
    target: { type: "string" },
    input: { type: "string" },
  },
});
if (options.target !== undefined && !targetNames.includes(options.target))
  refuse(`there is no target ${options.target}; targets: ${targetNames.join(", ")}`);
const targets = options.target === undefined ? targetNames : [options.target];
const seed = Number(options.seed) >>> 0;
let failed = false;

for (const name of targets) {
  const input = options.input === undefined ? undefined : await readFile(options.input);
  const found = await fuzz(name, {
    seed,
    input,
    cases: numberOption(options, "cases", 1),
    seconds: numberOption(options, "seconds") / targets.length,
  });
  failed ||= found > 0;
}
process.exitCode = failed ? 1 : 0;

/** Runs one target until its time is over, with a new worker after each failure. Returns how many there were. */
async function fuzz(name, { seed, input, cases, seconds }) {
  const end = Date.now() + seconds * 1000;
  let failures = 0;
  let next = 0;
  while (next < cases && Date.now() < end && failures < MAX_FAILURES) {
    const outcome = await runWorker({ name, seed, input, first: next, cases, end });
    next = outcome.index + 1;
    if (outcome.problem === undefined) break;
    failures++;
    const file = path.join(outputFolder, `${name}-${seed}-${outcome.index}.bin`);
    await mkdir(outputFolder, { recursive: true });
    await writeFile(file, input ?? makeCase(await import(path.join(folder, `${name}.mjs`)), seed, outcome.index));
    console.log(`${name}: ${outcome.problem}\n  seed ${seed}, case ${outcome.index}: ${file}`);
  }
  console.log(`${name}: ${next} cases with seed ${seed}, ${failures} failures`);
  return failures;
}

/** The case at which a worker stopped, and why; no problem if its time was over. */
function runWorker({ name, seed, input, first, cases, end }) {
  const progress = new Int32Array(new SharedArrayBuffer(4));
  Atomics.store(progress, 0, first);
  const workerData = { target: path.join(folder, `${name}.mjs`), seed, input, first, cases, end, progress };
  const worker = new Worker(path.join(folder, "shared", "worker.mjs"), {
    workerData,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
  });
  return new Promise((resolve) => {
    let previous = -1;
    let since = Date.now();
    const watch = setInterval(() => {
      const index = Atomics.load(progress, 0);
      if (index !== previous) since = Date.now();
      previous = index;
      if (Date.now() - since > SECONDS_A_CASE * 1000)
        finish({ index, problem: `hangs for more than ${SECONDS_A_CASE} s` });
    }, 200);
    const finish = (outcome) => {
      clearInterval(watch);
      resolve(outcome);
      worker.terminate();
    };
    worker.on("message", finish);
    worker.on("error", (error) =>
      finish({ index: Atomics.load(progress, 0), problem: `ends its thread: ${error.message}` }),
    );
    worker.on("exit", () => finish({ index: Atomics.load(progress, 0), problem: "ends its thread" }));
  });
}
