#!/usr/bin/env node
/**
 * Whether memory budgets are kept: a store under many budgets, from the least one up, each in a memory cgroup of exactly
 * that size with the page cache dropped first. Linux, root.
 *
 *   node tools/budgets.mjs STORE... [--count 20] [--prompt-tokens 16] [--new-tokens 3] [--max-seq-len N] [--json]
 *
 * Prints, for each budget, the cgroup's peak (page cache included), what was held and what a token streamed. Fails if a
 * program was killed, if a peak reached the budget, or if the tokens of two budgets differ.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { formatBytes } from "../dist/units.js";
import { cgroupProblem, runCapped } from "./measure/cgroup.mjs";
import { numberOption, readOptions, refuse } from "./options.mjs";

const mib = 2 ** 20;
const generate = new URL("./measure/generate.mjs", import.meta.url).pathname;

/** A copy: pages of a program that runs elsewhere too may be charged to the others. */
function copyOfNode() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-budgets-"));
  process.on("exit", () => fs.rmSync(directory, { recursive: true }));
  const copy = path.join(directory, "node");
  fs.copyFileSync(process.execPath, copy);
  fs.chmodSync(copy, 0o755);
  return copy;
}

/** One run of `store` with `memory` bytes, in a cgroup of `limit` bytes. */
async function runUnder(store, request, memory, limit) {
  const load = { ...request.load, memory };
  const command = [node, generate, JSON.stringify({ ...request, path: store, load })];
  const { stdout, ...outcome } = await runCapped(command, { memoryBytes: limit });
  return { budgetBytes: memory, ...outcome, ...(stdout.trim() ? JSON.parse(stdout) : {}) };
}

/** The least budget, from the message that refuses a smaller one. */
async function leastBudget(store, request) {
  const { message = "", stderr } = await runUnder(store, request, 16 * mib, 2 ** 30);
  const least = /Give it (\d+)MiB/.exec(message)?.[1];
  if (least === undefined) throw new Error(`${store} was not refused a budget of 16 MiB: ${message}${stderr}`);
  return Number(least) * mib;
}

/** `count` budgets in even ratios, from the least to one that holds everything. */
function budgetsFrom(least, weightBytes, count) {
  const most = Math.max(least + weightBytes * 1.3 + 512 * mib, 2 * least);
  const ratio = (most / least) ** (1 / Math.max(1, count - 1));
  return Array.from({ length: count }, (_, index) => Math.ceil((least * ratio ** index) / mib) * mib);
}

function problemOf(run, tokens) {
  if (run.oomKills > 0) return "killed: out of memory";
  if (run.code !== 0) return `ended with code ${run.code}: ${run.stderr.trim().split("\n").at(-1)}`;
  if (run.message) return run.message;
  if (run.peakBytes >= run.budgetBytes) return "peak reaches the budget";
  return String(run.tokens) === String(tokens) ? undefined : "other tokens";
}

async function tryStore(store, request, count) {
  const least = await leastBudget(store, request);
  const reference = await runUnder(store, request, least, least);
  const { weightBytes = 0 } = reference.stats ?? {};
  const runs = [reference];
  for (const budget of budgetsFrom(least, weightBytes, count).slice(1)) {
    runs.push(await runUnder(store, request, budget, budget));
  }
  return runs.map((run) => ({ store, ...run, problem: problemOf(run, reference.tokens) }));
}

const row = ({ budgetBytes, peakBytes, residency, problem }) => {
  const share = `${((100 * peakBytes) / budgetBytes).toFixed(1)} %`;
  const { heldBytes = 0, streamedBytes = 0 } = residency ?? {};
  return [
    ...[budgetBytes, peakBytes].map(formatBytes),
    share,
    ...[heldBytes, streamedBytes].map(formatBytes),
    problem ?? "kept",
  ];
};

function printTable(rows) {
  const all = [["budget", "peak", "", "held", "streamed", ""], ...rows];
  const widths = all[0].map((_, column) => Math.max(...all.map((cells) => cells[column].length)));
  for (const cells of all)
    console.log(`  ${cells.map((cell, column) => cell.padEnd(widths[column])).join("  ")}`.trimEnd());
}

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    count: { type: "string", default: "20" },
    "prompt-tokens": { type: "string", default: "16" },
    "new-tokens": { type: "string", default: "3" },
    "max-seq-len": { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const impossible = cgroupProblem();
if (impossible !== undefined || positionals.length === 0) refuse(impossible ?? "name at least one layer store");
const maxSeqLen = values["max-seq-len"] && numberOption(values, "max-seq-len", 1);
const node = copyOfNode();
const request = {
  load: maxSeqLen ? { maxSeqLen } : {},
  promptTokens: numberOption(values, "prompt-tokens", 1),
  newTokens: numberOption(values, "new-tokens", 1),
};
for (const store of positionals) {
  const runs = await tryStore(store, request, numberOption(values, "count", 1));
  if (values.json) console.log(JSON.stringify(runs));
  else {
    console.log(store);
    printTable(runs.map(row));
  }
  if (runs.some(({ problem }) => problem)) process.exitCode = 1;
}
