#!/usr/bin/env node
/**
 * Checks and times what only a machine with a GPU can show, in one run with an end: one table, and its rows as JSON. Start
 * it with `bash tools/gpu.sh`, which brings what such a machine may lack.
 *
 *   node tools/gpu.mjs [--device cuda|hip|opencl] [--minutes 9] [--only SECTION,...] [--directory DIRECTORY] [--python python3]
 *     [--results FILE] [--small]
 *
 * Sections: device (what it is and its rates), native (conformance of all ops and formats, transfers, runtime), golden (every
 * reference case, held and streamed), sanitizer (compute-sanitizer on the conformance suite), kernels (products of one token
 * in each format beside the memory's rate), held (an 8B shape in bf16, 8bit and 4bit), transformers (the same shape there),
 * copies (a 70B 4bit shape in host memory, 4 GiB on the device), disk (streamed to the device), offload (accelerate's
 * cpu_offload and disk_offload beside the same budgets).
 *
 * Models with random weights are written to DIRECTORY (a temporary one by default) and deleted. --small: tiny ones, to try
 * the script itself on any device. A section that fails or has no time left is a row that says so.
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { formatBytes, formatNumber, formatRate } from "../dist/units.js";
import { numberOption, readOptions } from "./options.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { values } = readOptions({
  options: {
    device: { type: "string", default: "cuda" },
    minutes: { type: "string", default: "9" },
    only: { type: "string" },
    directory: { type: "string" },
    python: { type: "string", default: "python3" },
    results: { type: "string" },
    small: { type: "boolean", default: false },
  },
});
const { device, small } = values;
const end = performance.now() + numberOption(values, "minutes", 0.1) * 60_000;
const directory = values.directory ?? fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-gpu-"));
const made = [];
const rows = [];

const secondsLeft = () => Math.max(0, (end - performance.now()) / 1000);

/** Runs a program for at most so many seconds, and gives what it printed. */
function run(program, args, { seconds = 120, env = {} } = {}) {
  const limit = Math.min(seconds, secondsLeft());
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"])
      child[name].setEncoding("utf8").on("data", (text) => (output[name] += text));
    const timer = setTimeout(() => child.kill("SIGKILL"), limit * 1000);
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve(output.stdout);
      const last = `${output.stderr}\n${output.stdout}`.trim().split("\n").slice(-3).join(" / ");
      reject(new Error(signal ? `not done in ${limit.toFixed(0)} s` : `exit code ${code}: ${last}`));
    });
  });
}

const lastLine = (text) => JSON.parse(text.trim().split("\n").at(-1));
const layerstream = async (...args) => lastLine(await run(process.execPath, ["dist/cli/main.js", ...args, "--json"]));
const transformers = async (settings, seconds) =>
  lastLine(await run(values.python, ["tools/compare/gpu_transformers.py", JSON.stringify(settings)], { seconds }));

const judgement = ({ share, target }) =>
  share == null ? "" : `${share.toFixed(3)}${target === undefined ? "" : ` (${target} asked)`}`;

/** One line of the table. `target` is the least share that is asked for. */
function row(what, figure, share, target) {
  rows.push({ section: current, what, figure, share, target });
  console.error(`gpu: ${current}: ${what}: ${figure} ${judgement(rows.at(-1))}`);
}

const shapes = small
  ? {
      eight: [
        "--hidden",
        "512",
        "--intermediate",
        "1024",
        "--heads",
        "8",
        "--kv-heads",
        "2",
        "--layers",
        "4",
        "--vocab",
        "4096",
      ],
    }
  : { eight: ["--layers", "32", "--vocab", "128256"] };
shapes.seventy = small
  ? [...shapes.eight, "--layers", "8"]
  : [
      "--hidden",
      "8192",
      "--intermediate",
      "28672",
      "--heads",
      "64",
      "--layers",
      "80",
      "--vocab",
      "128256",
      "--distinct-layers",
      "8",
    ];
const budgets = small ? { vram: "64MiB", memory: "1GiB" } : { vram: "4GiB", memory: "60GiB" };
const request = { promptTokens: 16, newTokens: small ? 6 : 33, prefillTokens: small ? 64 : 2048 };

/** Writes a model once and gives its directory. */
async function model(name, script, ...options) {
  const target = path.join(directory, name);
  if (!made.includes(target)) {
    made.push(target);
    await run(process.execPath, [`tools/${script}.mjs`, target, ...options], { seconds: 150 });
  }
  return target;
}

const checkpoint = () => model("checkpoint", "make-checkpoint", ...shapes.eight);
const store = (compression) => model(compression, "make-store", ...shapes.eight, "--compression", compression);

/** `bench`: a decoded token's seconds and all its figures. */
function bench(directory, ...options) {
  const { promptTokens, newTokens } = request;
  const counts = ["--prompt-tokens", `${promptTokens}`, "--new-tokens", `${newTokens}`, "--roofline-seconds", "0.5"];
  return layerstream("bench", directory, "--device", device, "--max-seq-len", "4096", ...counts, ...options);
}

let rates;

const sections = {
  async device() {
    const { checks } = await layerstream("doctor");
    for (const { name, detail } of checks.filter((check) => check.device)) row(name, detail);
    rates = checks.find((check) => check.device?.name === device)?.device;
    if (rates?.memoryBytesPerSecond === undefined) throw new Error(`the device ${device} cannot be used here`);
  },

  async native() {
    const folder = path.join(root, "build", "native-tests", "plain");
    for (const name of ["conformance_test", "device_test", "transfer_test", "runtime_test"]) {
      const printed = await run(path.join(folder, name), [], { seconds: 90 });
      row(name, printed.trim().split("\n").slice(-2).join("; "));
    }
  },

  async golden() {
    const directories = ["test/fixtures/families", "test/fixtures/quantized", "../shared/golden", "shared/golden"];
    const printed = await run(process.execPath, ["tools/measure/golden.mjs", device, ...directories]);
    const { cases, worst, problems } = lastLine(printed);
    row("reference cases", `${cases} run, ${problems.length} wrong, worst error ${worst.toExponential(1)}`);
    for (const problem of problems.slice(0, 10)) row("wrong", problem);
  },

  async sanitizer() {
    if (!device.startsWith("cuda")) return row("compute-sanitizer", "is for CUDA alone");
    const program = path.join(root, "build", "native-tests", "plain", "conformance_test");
    const printed = await run("compute-sanitizer", ["--error-exitcode", "9", program], { seconds: 120 });
    row("compute-sanitizer", printed.trim().split("\n").at(-1));
  },

  async kernels() {
    const printed = await run(path.join(root, "build", "native-tests", "plain", "device_bench"), [], { seconds: 60 });
    for (const line of printed.trim().split("\n")) row("", line);
  },

  async held() {
    for (const compression of ["none", "8bit", "4bit"]) {
      const figures = await bench(await store(compression));
      const rate = figures.bytesMultipliedPerToken / figures.secondsPerToken;
      row(
        `${compression}: a token`,
        `${formatNumber(figures.secondsPerToken)} s, ${formatRate(rate)}`,
        rate / rates.memoryBytesPerSecond,
        0.8,
      );
    }
  },

  async transformers() {
    const source = await checkpoint();
    const ours = await bench(await store("none"), "--prompt-tokens", `${request.prefillTokens}`);
    const theirs = await transformers({ ...request, model: source, mode: "held" }, 150);
    const { peak } = await transformers({ mode: "peak" }, 60);
    row(
      "a token",
      `${formatNumber(ours.secondsPerToken)} s, there ${formatNumber(theirs.tokenSeconds)} s`,
      theirs.tokenSeconds / ours.secondsPerToken,
      1,
    );
    const prefill = request.prefillTokens / ours.prefillTokensPerSecond;
    row(
      "a prompt",
      `${formatNumber(prefill)} s, there ${formatNumber(theirs.prefillSeconds)} s`,
      theirs.prefillSeconds / prefill,
    );
    row(
      "its arithmetic",
      `${formatNumber(ours.promptOperationsPerSecond / 1e12)} TFLOP/s of ${formatNumber(peak / 1e12)}`,
      ours.promptOperationsPerSecond / peak,
      0.7,
    );
  },

  async copies() {
    const source = await model("seventy", "make-store", ...shapes.seventy, "--compression", "4bit");
    const figures = await bench(source, "--vram", budgets.vram, "--memory", budgets.memory, "--placement", "device");
    const { secondsPerToken, bytesCopiedPerToken, copyRooflineBytesPerSecond, copyFraction } = figures;
    const rates = `${formatBytes(bytesCopiedPerToken)} where copies alone have ${formatRate(copyRooflineBytesPerSecond)}`;
    row(
      `70B, 4bit, --vram ${budgets.vram}: a token`,
      `${formatNumber(secondsPerToken)} s, ${rates}`,
      copyFraction,
      0.95,
    );
  },

  async disk() {
    const figures = await bench(await store("8bit"), "--no-hold");
    row("streamed to the device", formatRate(figures.diskBytesPerSecond), figures.rooflineFraction, 0.97);
  },

  async offload() {
    const source = await checkpoint();
    const few = { ...request, newTokens: 4, model: source, directory: path.join(directory, "offload") };
    for (const [mode, target, options] of [
      ["cpu_offload", 6, ["--vram", budgets.vram, "--memory", budgets.memory]],
      ["disk_offload", 10, ["--vram", budgets.vram, "--no-hold"]],
    ]) {
      const ours = await bench(await store("none"), ...options, "--new-tokens", "6");
      const theirs = await transformers({ ...few, mode }, 120);
      row(
        mode,
        `${formatNumber(ours.secondsPerToken)} s a token, there ${formatNumber(theirs.tokenSeconds)} s`,
        theirs.tokenSeconds / ours.secondsPerToken,
        target,
      );
    }
  },
};

let current = "";
const chosen = values.only?.split(",") ?? Object.keys(sections);
try {
  for (current of chosen) {
    const begin = performance.now();
    try {
      if (sections[current] === undefined)
        throw new Error(`there is no such section; there are ${Object.keys(sections).join(", ")}`);
      if (secondsLeft() < 5) throw new Error("no time was left");
      await sections[current]();
    } catch (error) {
      row("not done", error.message);
    }
    console.error(`gpu: ${current} took ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  }
} finally {
  for (const written of [...made, path.join(directory, "offload")])
    fs.rmSync(written, { recursive: true, force: true });
  if (values.directory === undefined) fs.rmSync(directory, { recursive: true, force: true });
}
if (values.results !== undefined)
  fs.writeFileSync(values.results, `${rows.map((each) => JSON.stringify(each)).join("\n")}\n`);
const cells = rows.map((each) => [each.section, each.what, each.figure, judgement(each)]);
const widths = [0, 1, 2].map((column) => Math.max(...cells.map((line) => line[column].length)));
for (const line of cells)
  console.log(
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
