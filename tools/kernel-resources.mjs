#!/usr/bin/env node
/**
 * Prints what each CUDA kernel takes of a multiprocessor, as NVIDIA's assembler says: registers of a thread, static shared
 * memory of a block, and bytes of registers that it has to spill to memory. Needs nvcc, and no GPU.
 *
 *   node tools/kernel-resources.mjs [--json]
 *
 * Ends with 1 if a kernel spills more than it may: that memory is read and written beside the weights.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { compile, findCompiler } = createRequire(import.meta.url)("./embed-cuda-kernels.cjs");
const { values } = readOptions({ options: { json: { type: "boolean", default: false } } });

/**
 * Bytes of stores and loads, which stay in the cache: a little where a format's bits are far apart, a word for products of one or few
 * tokens, nothing for all others.
 */
function maySpill({ kernel }) {
  if (/^vectors?_(uint[23]|q[235]_k|q5_1)$/.test(kernel)) return 100;
  return kernel.startsWith("vector") ? 8 : 0;
}

/** One entry a kernel and architecture of what `-Xptxas -v` prints. */
function readResources(source, log) {
  const entries = [];
  for (const line of log.split("\n")) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry !== null)
      entries.push({ source, kernel: entry[1], architecture: entry[2], registers: 0, shared: 0, spilled: 0 });
    const last = entries.at(-1);
    if (last === undefined) continue;
    const spill = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (spill !== null) last.spilled = Number(spill[1]) + Number(spill[2]);
    const used = /Used (\d+) registers/.exec(line);
    if (used !== null) last.registers = Number(used[1]);
    const shared = /(\d+) bytes smem/.exec(line);
    if (shared !== null) last.shared = Number(shared[1]);
  }
  return entries;
}

function table(entries) {
  const architectures = [...new Set(entries.map(({ architecture }) => architecture))].sort();
  const names = [...new Set(entries.map(({ source, kernel }) => `${source} ${kernel}`))];
  const lines = [["", ...architectures].join(" | "), ["---", ...architectures.map(() => "---")].join(" | ")];
  for (const name of names) {
    const cells = architectures.map((architecture) => {
      const found = entries.find(
        (each) => `${each.source} ${each.kernel}` === name && each.architecture === architecture,
      );
      if (found === undefined) return "";
      return `${found.registers} registers, ${found.shared} B${found.spilled > 0 ? `, SPILLS ${found.spilled} B` : ""}`;
    });
    lines.push([name, ...cells].join(" | "));
  }
  return lines.map((line) => `| ${line} |`).join("\n");
}

const found = findCompiler();
if (found === undefined) {
  console.error("kernel-resources: there is no nvcc. Install the CUDA toolkit, or set NVCC to the compiler.");
  process.exit(2);
}
const images = await compile(found.compiler, found.version, path.join(root, "native", "cuda", "kernels"));
const entries = [...images].flatMap(([source, image]) => readResources(source, readFileSync(`${image}.log`, "utf8")));
console.log(values.json ? JSON.stringify(entries) : table(entries));
const spilling = entries.filter((entry) => entry.spilled > maySpill(entry));
for (const { kernel, architecture, spilled } of spilling) {
  console.error(`kernel-resources: ${kernel} spills ${spilled} bytes on ${architecture}.`);
}
if (entries.length === 0) console.error("kernel-resources: the assembler has listed no kernel.");
process.exitCode = spilling.length > 0 || entries.length === 0 ? 1 : 0;
