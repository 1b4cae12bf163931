// Compiles the CUDA kernels of a folder for AMD's GPUs and writes them as the table `kKernelImages` of native/hip/kernel_images.h.
//
//   embed-hip-kernels.cjs --compiler           prints AMD's compiler and what it compiles for as "PATH@VERSION@TARGET,...", or "none"
//   embed-hip-kernels.cjs COMPILER FOLDER OUTPUT
//
// COMPILER is what --compiler printed; with "none", or where the compiler fails, the table is empty. LAYERSTREAM_HIP_TARGETS names
// targets, or "none"; without it they are those of the GPUs here, or what is common where there are none. Those that the compiler
// does not know are left out. Each takes about half a minute of a processor; images are kept in build/hip and made again only if
// what they come from changed.
const { spawnSync } = require("node:child_process");
const { existsSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { compileKernels, imageTable } = require("./kernel-images.cjs");

/** MI200, MI300, RX 6800 and 6900, RX 7900. */
const commonTargets = ["gfx90a", "gfx942", "gfx1030", "gfx1100"];
/** Of tensor cores, which the launcher leaves alone on other GPUs. */
const excluded = ["matrix_fast.cu", "prepare.cu", "prompt.cu"];
/** Where CUDA is installed too, hipcc compiles for that unless it is told. */
const env = { ...process.env, HIP_PLATFORM: "amd" };

/** Of the GPUs of this machine, as Linux numbers them: 90010 is gfx90a. */
function targetsHere() {
  const nodes = "/sys/class/kfd/kfd/topology/nodes";
  if (!existsSync(nodes)) return [];
  const versions = readdirSync(nodes).map((node) => {
    const properties = readFileSync(path.join(nodes, node, "properties"), "utf8");
    return Number(/^gfx_target_version (\d+)$/m.exec(properties)?.[1] ?? 0);
  });
  const name = (version) =>
    `gfx${Math.floor(version / 10000)}${(Math.floor(version / 100) % 100).toString(16)}${(version % 100).toString(16)}`;
  return [...new Set(versions.filter((version) => version > 0).map(name))];
}

/** The first hipcc that runs, of $HIPCC, $ROCM_PATH, $HIP_PATH, $PATH and the usual folder, with the targets. */
function findCompiler() {
  const given = process.env.LAYERSTREAM_HIP_TARGETS;
  if (given === "none") return undefined;
  const folders = [process.env.ROCM_PATH, process.env.HIP_PATH].filter(Boolean);
  const usual = ["/opt/rocm"].filter((folder) => existsSync(folder));
  const inFolder = (folder) => path.join(folder, "bin", "hipcc");
  for (const compiler of [process.env.HIPCC, ...folders.map(inFolder), "hipcc", ...usual.map(inFolder)].filter(
    Boolean,
  )) {
    const { stdout } = spawnSync(compiler, ["--version"], { encoding: "utf8", env });
    const version = /HIP version: (\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1];
    if (version === undefined) continue;
    const here = targetsHere();
    return { compiler, version, targets: given ? given.split(",") : here.length > 0 ? here : commonTargets };
  }
  return undefined;
}

function identify(found) {
  return found === undefined ? "none" : `${found.compiler}@${found.version}@${found.targets.join(",")}`;
}

/** Whether the compiler has what a target needs. */
function knows(compiler, target) {
  const empty = ["-x", "hip", "--genco", `--offload-arch=${target}`, "-nogpuinc", os.devNull, "-o", os.devNull];
  return spawnSync(compiler, empty, { env, stdio: "ignore" }).status === 0;
}

/** The image of each source, a bundle of the targets' code objects, and the targets that the compiler knows. */
async function compile({ compiler, version, targets: asked }, folder) {
  const targets = asked.filter((target) => knows(compiler, target));
  const unknown = asked.filter((target) => !targets.includes(target));
  if (unknown.length > 0)
    console.error(`embed-hip-kernels: ${compiler} ${version} does not know ${unknown.join(", ")}`);
  if (targets.length === 0) throw new Error("there is no target that the compiler knows");
  // Without contraction: sums of products are written as such.
  const flags = [
    "-x",
    "hip",
    "--genco",
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",
    "-Rpass-analysis=kernel-resource-usage",
  ];
  const options = [...flags, ...targets.map((target) => `--offload-arch=${target}`)];
  return { images: await compileKernels({ folder, cache: "hip", compiler, version, options, env, excluded }), targets };
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
  try {
    const compiled = await compile({ compiler, version, targets: targets.split(",") }, folder);
    writeFileSync(file, table(compiled.images, compiled.targets));
  } catch (error) {
    // A compiler without its libraries must not keep anyone from a build for other devices.
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
