// Compiles the CUDA kernels of a folder for AMD's GPUs and writes them as the table `kKernelImages` of native/hip/kernel_images.h.
//
//   embed-hip-kernels.cjs --compiler           prints AMD's compiler and what it compiles for as "PATH@VERSION@TARGET,...", or "none"
//   embed-hip-kernels.cjs COMPILER FOLDER OUTPUT
//
// COMPILER is what --compiler printed; with "none", or where the compiler fails, the table is empty. LAYERSTREAM_HIP_TARGETS names
// targets, or "none"; without it they are those of the GPUs here, or what is common where there are none. Each takes about
// twelve seconds of two processors; images are kept in build/hip and made again only if what they come from changed.
const { spawnSync } = require("node:child_process");
const { existsSync, writeFileSync } = require("node:fs");
const path = require("node:path");
const { compileKernels, imageTable } = require("./kernel-images.cjs");

/** MI200, RX 6800 and 6900, RX 7900. */
const commonTargets = ["gfx90a", "gfx1030", "gfx1100"];
/** Of tensor cores, which the launcher leaves alone on other GPUs. */
const excluded = ["matrix_fast.cu", "prepare.cu"];
/** Where CUDA is installed too, hipcc compiles for that unless it is told. */
const env = { ...process.env, HIP_PLATFORM: "amd" };

/** What a program prints; empty where there is none. */
function output(program, args) {
  return spawnSync(program, args, { encoding: "utf8", env }).stdout ?? "";
}

/** The first hipcc that runs, of $HIPCC, $ROCM_PATH, $HIP_PATH, $PATH and the usual folder, with the targets. */
function findCompiler() {
  const given = process.env.LAYERSTREAM_HIP_TARGETS;
  if (given === "none") return undefined;
  const folders = [process.env.ROCM_PATH, process.env.HIP_PATH].filter(Boolean);
  const usual = ["/opt/rocm"].filter((folder) => existsSync(folder));
  const inFolder = (folder) => path.join(folder, "bin", "hipcc");
  const all = [process.env.HIPCC, ...folders.map(inFolder), "hipcc", ...usual.map(inFolder)].filter(Boolean);
  for (const compiler of all) {
    const version = /HIP version: (\d+\.\d+\.\d+)/.exec(output(compiler, ["--version"]))?.[1];
    if (version === undefined) continue;
    const here = new Set(output("rocm_agent_enumerator", []).match(/\bgfx(?!000)\w+/g));
    const targets = given ? given.split(",") : here.size > 0 ? [...here] : commonTargets;
    return { compiler, version, targets };
  }
  return undefined;
}

function identify(found) {
  return found === undefined ? "none" : `${found.compiler}@${found.version}@${found.targets.join(",")}`;
}

/** The image of each source: a bundle of the targets' code objects. */
function compile({ compiler, version, targets }, folder) {
  // Without contraction: sums of products are written as such.
  const options = [
    "-x",
    "hip",
    "--genco",
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",
    "-Rpass-analysis=kernel-resource-usage",
  ];
  const architectures = targets.map((target) => `--offload-arch=${target}`);
  return compileKernels({
    folder,
    cache: "hip",
    compiler,
    version,
    options: [...options, ...architectures],
    env,
    excluded,
  });
}

function table(images, targets) {
  const constants = [`const char* const kKernelTargets = "${targets.join(", ")}";`];
  const place = { header: path.join("hip", "kernel_images.h"), namespace: "layerstream::hip", alignment: 4096 };
  return imageTable({ images, constants, ...place });
}

async function main(given, folder, file) {
  if (given === "--compiler") return console.log(identify(findCompiler()));
  if (given === "none") return writeFileSync(file, table(new Map(), []));
  const [compiler, version, targets] = given.split("@");
  const found = { compiler, version, targets: targets.split(",") };
  try {
    writeFileSync(file, table(await compile(found, folder), found.targets));
  } catch (error) {
    // A compiler without its libraries, or of other targets, must not keep anyone from a build for other devices.
    console.error(`embed-hip-kernels: built without HIP: ${error.message}`);
    writeFileSync(file, table(new Map(), []));
  }
}

module.exports = { compile, findCompiler, identify };
if (require.main === module) {
  main(...process.argv.slice(2)).catch((error) => {
    console.error(`embed-hip-kernels: ${error.message}`);
    process.exitCode = 1;
  });
}
