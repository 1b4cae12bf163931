#!/usr/bin/env node
/**
 * Compiles the CUDA kernels for AMD's GPUs with hipcc: a check, nothing of it is kept. Prints registers, shared memory and
 * spills of every kernel; says so where there is no hipcc.
 *
 *   node tools/hip-kernels.mjs [--architecture gfx1030]
 */
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

const { values } = readOptions({ options: { architecture: { type: "string", default: "gfx1030" } } });
const folder = fileURLToPath(new URL("../native/cuda/kernels", import.meta.url));
/** Where CUDA is installed too, hipcc compiles for that unless it is told. */
const env = { ...process.env, HIP_PLATFORM: "amd" };
const options = [
  "-x",
  "hip",
  "--genco",
  `--offload-arch=${values.architecture}`,
  "-std=c++20",
  "-O3",
  "-ffp-contract=off",
];

/** What the compiler says of the resources of each kernel of a source. */
function compile(source) {
  return new Promise((resolve, reject) => {
    const args = [...options, "-Rpass-analysis=kernel-resource-usage", path.join(folder, source), "-o", "/dev/null"];
    const child = spawn("hipcc", args, { env, stdio: ["ignore", "ignore", "pipe"] });
    let remarks = "";
    child.stderr.setEncoding("utf8").on("data", (text) => (remarks += text));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) return resolve(kernelsOf(remarks));
      const errors = remarks.split("\n").filter((line) => line.includes("error:"));
      reject(new Error(`hipcc does not compile ${source}:\n${errors.slice(0, 10).join("\n")}`));
    });
  });
}

function kernelsOf(remarks) {
  const kernels = remarks.split("remark: Function Name: ").slice(1);
  const number = (text, name) => Number(new RegExp(`remark: +${name}[^:]*: (\\d+)`).exec(text)?.[1] ?? 0);
  return kernels.map((text) => ({
    name: /^\w+/.exec(text)[0],
    registers: number(text, "VGPRs"),
    spills: number(text, "VGPRs Spill") + number(text, "SGPRs Spill"),
    sharedBytes: number(text, "LDS Size"),
  }));
}

if (spawnSync("hipcc", ["--version"], { env }).status !== 0) {
  console.log("hip-kernels: skipped: there is no hipcc (Debian: apt-get install hipcc)");
  process.exit(0);
}
const sources = fs.readdirSync(folder).filter((file) => file.endsWith(".cu"));
const kernels = (await Promise.all(sources.map(compile))).flat();
const width = Math.max(...kernels.map(({ name }) => name.length));
for (const { name, registers, spills, sharedBytes } of kernels) {
  console.log(
    `${name.padEnd(width)}  ${registers} registers, ${sharedBytes} bytes of shared memory, ${spills} spilled`,
  );
}
console.log(`hip-kernels: ${kernels.length} kernels of ${sources.length} sources compile for ${values.architecture}`);
