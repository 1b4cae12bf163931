#!/usr/bin/env node
/**
 * layerstream beside llama.cpp and transformers: the same shape, machine, memory cap and disk, page cache dropped first, one
 * program at a time in a cgroup of its own. Linux, root.
 *
 *   node tools/compare.mjs CHECKPOINT --stores DIRECTORY [--gguf DIRECTORY] [--node-llama-cpp DIRECTORY] [--python PROGRAM]
 *     [--formats none,lossless,8bit,4bit] [--memory 0.5,0.9,held] [--disk 1GB,0] [--programs layerstream,llama.cpp,transformers]
 *     [--results FILE] [--seconds 150] [--json]
 *
 * STORES/none, STORES/8bit and so on are layer stores of the checkpoint (`layerstream decompose`), GGUF/bf16/model.gguf,
 * GGUF/q8_0/model.gguf and so on are of its shape (tools/make-gguf.mjs). node-llama-cpp lies in node_modules of the directory
 * named; PROGRAM is a Python with torch, transformers and accelerate. What is absent is said and left out.
 *
 * --memory: caps as parts of W, the bytes of the store (of `none` for `lossless`, which is compared with plain bf16); `held` is
 * room for everything. --disk: bytes a second; 0 is no throttle. A cell is a prompt of 16 tokens and six new ones: the median of
 * the five gaps; held ones also take prompts of 512 tokens, and the faster of two counts. With --results, cells are kept in
 * FILE, one JSON object a line, and those that it has are not measured again: a table can be made in several runs.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { formatBytes, formatNumber, parseBytes } from "../dist/units.js";
import { comparisonTable, measuredAs } from "./compare/table.mjs";
import { cgroupProblem, runCapped } from "./measure/cgroup.mjs";
import { readOptions, refuse } from "./options.mjs";

const gib = 2 ** 30;
const request = { promptTokens: 16, newTokens: 6 };
const prefillTokens = 512;
const threads = os.availableParallelism();

/** llama.cpp's type at nearly equal bits. Under a cap q4_0 is killed or never ends: it repacks its weights into memory of its own. */
const ggufTypes = { none: "bf16", "8bit": "q8_0", "4bit": "q4_0" };
const cappedTypes = { ...ggufTypes, "4bit": "q4_1" };

const tool = (name) => new URL(`./compare/${name}`, import.meta.url).pathname;

/** Of each program: the command that measures a cell, or a string that says why it cannot be measured here. */
const programs = {
  layerstream: ({ format, held, memoryBytes }, { stores }) => {
    const model = path.join(stores, format);
    if (!fs.existsSync(model)) return `there is no store ${model}`;
    return [
      process.execPath,
      tool("layerstream.mjs"),
      { model, memory: memoryBytes, prefillTokens: held ? prefillTokens : 0 },
    ];
  },
  "llama.cpp": ({ format, held }, { gguf, library, vocab }) => {
    if (library === undefined) return "node-llama-cpp is not installed: name its directory with --node-llama-cpp";
    const type = (held ? ggufTypes : cappedTypes)[format];
    const model = path.join(gguf ?? "", type, "model.gguf");
    if (gguf === undefined || !fs.existsSync(model)) return `there is no ${model}: write it with tools/make-gguf.mjs`;
    const cell = { library, model, vocab, threads, prefillTokens: held ? prefillTokens : 0 };
    return [process.execPath, tool("llama-cpp.mjs"), cell];
  },
  transformers: ({ format, held }, { python, checkpoint }) => {
    if (format !== "none") return undefined;
    if (python === undefined) return "there is no Python with accelerate: name one with --python";
    const cell = { model: checkpoint, held, threads, prefillTokens: held ? prefillTokens : 0 };
    return [python, tool("accelerate_offload.py"), cell];
  },
};

function storeBytes(directory) {
  const files = fs.readdirSync(directory).filter((name) => name.endsWith(".safetensors"));
  return files.reduce((sum, name) => sum + fs.statSync(path.join(directory, name)).size, 0);
}

function placesOf({ formats, memory, disk, stores }) {
  const places = [];
  for (const format of formats) {
    const measured = path.join(stores, format === "lossless" ? "none" : format);
    if (!fs.existsSync(measured)) {
      console.error(`compare: ${format} is left out: there is no store ${measured}`);
      continue;
    }
    const weightBytes = storeBytes(measured);
    for (const share of memory) {
      const held = share === "held";
      const memoryBytes = Math.round(held ? 1.5 * weightBytes + 3 * gib : Number(share) * weightBytes);
      for (const diskBytesPerSecond of held ? [0] : disk) {
        places.push({ format, share, held, memoryBytes, diskBytesPerSecond });
      }
    }
  }
  return places;
}

const keyOf = ({ program, format, share, diskBytesPerSecond }) => [program, format, share, diskBytesPerSecond].join();

/** Measures one cell; undefined where the program has no such format. */
async function measure(cell, place, seconds) {
  const command = programs[cell.program](cell, place);
  if (command === undefined) return undefined;
  if (typeof command === "string") return { ...cell, problem: command };
  const [program, script, settings] = command;
  const { memoryBytes, diskBytesPerSecond } = cell;
  const { stdout, stderr, code, peakBytes, oomKills } = await runCapped(
    ["timeout", "-k", "5", String(seconds), program, script, JSON.stringify({ ...request, ...settings })],
    { memoryBytes, readBytesPerSecond: diskBytesPerSecond, file: settings.model },
  );
  const outcome = { ...cell, peakBytes, measuredAt: new Date().toISOString() };
  if (code === 0) return { ...outcome, ...JSON.parse(stdout.trim().split("\n").at(-1)) };
  const ended = oomKills > 0 ? "killed: out of memory" : code === 124 ? `not done in ${seconds} s` : undefined;
  return { ...outcome, problem: ended ?? stderr.trim().split("\n").at(-1) };
}

function readResults(file) {
  if (file === undefined || !fs.existsSync(file)) return [];
  const lines = fs.readFileSync(file, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => JSON.parse(line));
}

/** A line for whoever watches. */
function progressLine({ program, format, share, diskBytesPerSecond, problem, tokenSeconds, peakBytes }) {
  const where = `${program}, ${format}, ${share === "held" ? "held" : `${share} W`}${diskBytesPerSecond ? ", throttled" : ""}`;
  if (problem !== undefined) return `${where}: ${problem}`;
  return `${where}: ${tokenSeconds.map(formatNumber).join(" ")} s, peak ${formatBytes(peakBytes)}`;
}

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    stores: { type: "string" },
    gguf: { type: "string" },
    "node-llama-cpp": { type: "string", default: "." },
    python: { type: "string" },
    formats: { type: "string", default: "none,lossless,8bit,4bit" },
    memory: { type: "string", default: "0.5,0.9,held" },
    disk: { type: "string", default: "1GB,0" },
    programs: { type: "string", default: Object.keys(programs).join() },
    results: { type: "string" },
    seconds: { type: "string", default: "150" },
    json: { type: "boolean", default: false },
  },
});
const impossible = cgroupProblem();
if (impossible !== undefined || positionals.length !== 1 || values.stores === undefined)
  refuse(impossible ?? "name a checkpoint, and with --stores the directory of its layer stores");
const checkpoint = path.resolve(positionals[0]);
const library = path.resolve(values["node-llama-cpp"], "node_modules/node-llama-cpp/dist/index.js");
const place = {
  ...values,
  checkpoint,
  library: fs.existsSync(library) ? pathToFileURL(library).href : undefined,
  vocab: JSON.parse(fs.readFileSync(path.join(checkpoint, "config.json"), "utf8")).vocab_size,
};
const places = placesOf({
  formats: values.formats.split(","),
  memory: values.memory.split(","),
  disk: values.disk.split(",").map((rate) => (rate === "0" ? 0 : parseBytes(rate, "--disk"))),
  stores: values.stores,
});
const results = readResults(values.results);
const known = new Set(results.filter(({ problem }) => problem === undefined).map(keyOf));
const cells = places.flatMap((row) => values.programs.split(",").map((program) => measuredAs(row, program)));
for (const cell of cells) {
  if (known.has(keyOf(cell))) continue;
  known.add(keyOf(cell));
  const result = await measure(cell, place, Number(values.seconds));
  if (result === undefined) continue;
  console.error(progressLine(result));
  results.push(result);
  if (values.results) fs.appendFileSync(values.results, `${JSON.stringify(result)}\n`);
}
if (values.json) console.log(JSON.stringify(results));
else console.log(comparisonTable(results, places));
