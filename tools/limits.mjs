#!/usr/bin/env node
/**
 * How close decoding comes to the speed of the disk: layer stores under memory budgets and disk throttles, each run in
 * cgroups of its own with the page cache dropped first. Linux, root.
 *
 *   node tools/limits.mjs STORE... [--memory 0.125,0.25,0.5,0.9] [--disk 200MB,500MB,1GB,2GB,0] [--seconds 6] [--json]
 *
 * --memory: budgets as parts of W, the bytes of the store. --disk: bytes a second; 0 is no throttle. --seconds: about how long
 * each run decodes.
 *
 * The floor of a token is (W - R) / disk: the bytes that are not held, at the raw rate of direct reads of the same files in the
 * same process before and after. The floor of the first token is W / disk. Fractions are floor / measured.
 */
import fs from "node:fs";
import path from "node:path";
import { formatBytes, formatRate, parseBytes } from "../dist/units.js";
import { cgroupProblem, runCapped } from "./measure/cgroup.mjs";
import { numberOption, readOptions, refuse } from "./options.mjs";

const program = new URL("../dist/cli/main.js", import.meta.url).pathname;
const mib = 2 ** 20;
/** What an unthrottled disk is taken for when the number of tokens is chosen. */
const unthrottledRate = 3e9;

function storeBytes(store) {
  const files = fs.readdirSync(store).filter((name) => name.endsWith(".safetensors"));
  return files.reduce((sum, name) => sum + fs.statSync(path.join(store, name)).size, 0);
}

/** Tokens that take about `seconds`: at least three after the first. */
function tokensFor(seconds, streamedBytes, rate) {
  return 1 + Math.min(64, Math.max(3, Math.round((seconds * rate) / streamedBytes)));
}

async function runCell({ store, weightBytes, share, rate, seconds }) {
  const budgetBytes = Math.ceil((weightBytes * share) / mib) * mib;
  const newTokens = tokensFor(seconds, Math.max(weightBytes - budgetBytes, weightBytes / 12), rate || unthrottledRate);
  const options = ["--memory", `${budgetBytes}`, "--max-seq-len", "256", "--new-tokens", `${newTokens}`, "--json"];
  const command = [process.execPath, program, "bench", store, ...options];
  const { code, stdout, stderr, peakBytes } = await runCapped(command, {
    memoryBytes: budgetBytes,
    readBytesPerSecond: rate,
    file: store,
  });
  const cell = { store, share, rate, budgetBytes, weightBytes, peakBytes };
  if (code !== 0) return { ...cell, problem: stderr.trim().split("\n").at(-1) || `ended with code ${code}` };
  const figures = JSON.parse(stdout);
  const coldFloorSeconds = weightBytes / figures.diskRooflineBytesPerSecond;
  return { ...cell, ...figures, coldFloorSeconds };
}

const seconds = (value) => `${value.toFixed(value < 10 ? 3 : 1)} s`;

function row(cell) {
  const head = [cell.rate ? formatRate(cell.rate) : "none", `${cell.share} W`, formatBytes(cell.budgetBytes)];
  if (cell.problem) return [...head, cell.problem];
  const floor = cell.bytesStreamedPerToken / cell.diskRooflineBytesPerSecond;
  return [
    ...head,
    formatBytes(cell.bytesStreamedPerToken),
    formatRate(cell.diskRooflineBytesPerSecond),
    seconds(floor),
    seconds(cell.secondsPerToken),
    cell.rooflineFraction === null ? "-" : cell.rooflineFraction.toFixed(3),
    cell.readCpuShare.toFixed(3),
    `${seconds(cell.coldStartSeconds)} of ${seconds(cell.coldFloorSeconds)}`,
    formatBytes(cell.peakBytes),
  ];
}

const titles = [
  "throttle",
  "memory",
  "",
  "streamed",
  "raw disk",
  "floor",
  "token",
  "fraction",
  "reading CPU",
  "first token",
  "cgroup's peak",
];

/** Rows come minutes apart: each is printed at once. */
const widths = [10, 8, 9, 9, 10, 9, 9, 8, 11, 18, 13];
const printRow = (cells) =>
  console.log(`  ${cells.map((cell, column) => cell.padEnd(widths[column])).join("  ")}`.trimEnd());

const { values, positionals: stores } = readOptions({
  allowPositionals: true,
  options: {
    memory: { type: "string", default: "0.125,0.25,0.5,0.9" },
    disk: { type: "string", default: "200MB,500MB,1GB,2GB,0" },
    seconds: { type: "string", default: "6" },
    json: { type: "boolean", default: false },
  },
});
const impossible = cgroupProblem();
if (impossible !== undefined || stores.length === 0) refuse(impossible ?? "name at least one layer store");
const shares = values.memory.split(",").map(Number);
const rates = values.disk.split(",").map((rate) => (rate === "0" ? 0 : parseBytes(rate, "disk")));
for (const store of stores) {
  const weightBytes = storeBytes(store);
  if (!values.json) {
    console.log(`${store}: ${formatBytes(weightBytes)}`);
    printRow(titles);
  }
  for (const rate of rates) {
    for (const share of shares) {
      const cell = await runCell({ store, weightBytes, share, rate, seconds: numberOption(values, "seconds") });
      if (values.json) console.log(JSON.stringify(cell));
      else printRow(row(cell));
    }
  }
}
