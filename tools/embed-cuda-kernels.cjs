// Compiles the CUDA kernels of a folder and writes them as the table `kKernelImages` of native/cuda/kernel_images.h.
//
//   embed-cuda-kernels.cjs --compiler           prints NVIDIA's compiler as "PATH@VERSION", or "none"
//   embed-cuda-kernels.cjs COMPILER FOLDER OUTPUT
//
// COMPILER is what --compiler printed; with "none" the table is empty. Each source becomes a fat binary, which is kept in
// build/cuda and compiled again only if it, a header or the compiler changed.
const { spawnSync } = require("node:child_process");
const { existsSync, writeFileSync } = require("node:fs");
const path = require("node:path");
const { compileKernels, imageTable } = require("./kernel-images.cjs");

/**
 * What kernels are compiled to: Turing's PTX, and the PTX of Ampere with machine code for what is common. Machine code of 8.0 runs
 * on all of 8.x (Ampere, Ada), that of 12.0 on all of 12.x. Drivers compile PTX for other devices when they first load it.
 */
const targets = [
  { from: "75", code: ["compute_75"] },
  { from: "80", code: ["compute_80", "sm_80", "sm_90", "sm_120"] },
];
/** Without contraction: sums of products are written as such. */
const flags = ["-std=c++20", "-O3", "--fmad=false", "--expt-relaxed-constexpr", "-Xptxas=-v"];

/** The first nvcc that runs, of $NVCC, $CUDA_HOME, $CUDA_PATH, $PATH and the usual folders. */
function findCompiler() {
  const inFolder = (folder) => (folder ? [path.join(folder, "bin", "nvcc")] : []);
  const usual = ["/usr/local/cuda", "/opt/cuda"].filter((folder) => existsSync(folder));
  const given = [process.env.NVCC, ...inFolder(process.env.CUDA_HOME), ...inFolder(process.env.CUDA_PATH)].filter(
    Boolean,
  );
  for (const compiler of [...given, "nvcc", ...usual.flatMap(inFolder)]) {
    const { status, stdout } = spawnSync(compiler, ["--version"], { encoding: "utf8" });
    const version = /\bV(\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (status === 0 && version !== undefined) return { compiler, version };
  }
  return undefined;
}

function identify(found) {
  return found === undefined ? "none" : `${found.compiler}@${found.version}`;
}

/** As drivers number theirs. */
function driverVersion(version) {
  const [major, minor] = version.split(".").map(Number);
  return major * 1000 + minor * 10;
}

/** What of `targets` the compiler knows, as its options. */
function targetOptions(compiler) {
  const known = (option) => spawnSync(compiler, [option], { encoding: "utf8" }).stdout.split(/\s+/);
  const codes = [...known("--list-gpu-code"), ...known("--list-gpu-arch")];
  return targets.flatMap(({ from, code }) => {
    const found = code.filter((each) => codes.includes(each));
    return found.length === 0 ? [] : ["-gencode", `arch=compute_${from},code=[${found.join(",")}]`];
  });
}

/** A fifth of the bytes; drivers that take the code of such compilers can unpack it. */
function compressionOptions(version) {
  return Number(version.split(".")[0]) >= 13 ? ["-compress-mode=size"] : [];
}

/** The fat binary of each source. */
function compile(compiler, version, folder) {
  const options = [...flags, ...targetOptions(compiler), ...compressionOptions(version), "-fatbin"];
  return compileKernels({ folder, cache: "cuda", compiler, version, options });
}

function table(images, version) {
  const constants = [`const int kKernelVersion = ${version};`];
  const place = { header: path.join("cuda", "kernel_images.h"), namespace: "layerstream::cuda", alignment: 8 };
  return imageTable({ images, constants, ...place });
}

async function main(given, folder, output) {
  if (given === "--compiler") return console.log(identify(findCompiler()));
  if (given === "none") return writeFileSync(output, table(new Map(), 0));
  const [compiler, version] = given.split("@");
  writeFileSync(output, table(await compile(compiler, version, folder), driverVersion(version)));
}

module.exports = { compile, findCompiler, identify };
if (require.main === module) {
  main(...process.argv.slice(2)).catch((error) => {
    console.error(`embed-cuda-kernels: ${error.message}`);
    process.exitCode = 1;
  });
}
