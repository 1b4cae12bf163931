#!/usr/bin/env node
/**
 * Checks what HIP's device is made of where there is no GPU of AMD: compiles the kernels with hipcc and prints registers, shared
 * memory and spills of each, and holds the table of HIP's functions against HIP's headers. Says so where there is no hipcc.
 *
 *   node tools/hip-kernels.mjs [--target gfx1030]
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { compile, findCompiler } = createRequire(import.meta.url)("./embed-hip-kernels.cjs");
const { values } = readOptions({ options: { target: { type: "string" } } });

/** What the compiler says of each kernel, for one target after the other. */
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

/** Whether functions, numbers and structs are as the headers declare them. */
function checkHeaders(compiler) {
  const source = path.join(root, "test", "native", "hip_headers.cc");
  const options = ["-x", "hip", "--offload-host-only", "-std=c++20", "-fsyntax-only", source];
  const env = { ...process.env, HIP_PLATFORM: "amd" };
  const { status, stderr } = spawnSync(compiler, options, { encoding: "utf8", env });
  if (status !== 0) throw new Error(`HIP's headers declare something else than native/hip/functions.h:\n${stderr}`);
}

const found = findCompiler();
if (found === undefined) {
  console.log("hip-kernels: skipped: there is no hipcc (Debian: apt-get install hipcc)");
  process.exit(0);
}
if (values.target !== undefined) found.targets = [values.target];
const { compiler, version } = found;
checkHeaders(compiler);
const { images, targets } = await compile(found, path.join(root, "native", "cuda", "kernels"));
const kernels = [...images.values()].flatMap((image) => kernelsOf(readFileSync(`${image}.log`, "utf8")));
const width = Math.max(...kernels.map(({ name }) => name.length));
for (const { name, registers, spills, sharedBytes } of kernels) {
  console.log(
    `${name.padEnd(width)}  ${registers} registers, ${sharedBytes} bytes of shared memory, ${spills} spilled`,
  );
}
console.log(
  `hip-kernels: HIP ${version} declares what is called; ${kernels.length / targets.length} kernels compile for ${targets.join(", ")}`,
);
