// Compiles the CUDA kernels of a folder and writes them as the table `kKernelImages` of native/cuda/kernel_images.h.
//
//   embed-cuda-kernels.cjs --compiler           prints NVIDIA's compiler as "PATH@VERSION", or "none"
//   embed-cuda-kernels.cjs COMPILER FOLDER OUTPUT
//
// COMPILER is what --compiler printed; with "none" the table is empty. Each source becomes a fat binary, which is kept in
// build/cuda and compiled again only if it, a header or the compiler changed.
const { spawn, spawnSync } = require("node:child_process");
const { createHash } = require("node:crypto");
const {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} = require("node:fs");
const path = require("node:path");

const root = path.resolve(__dirname, "..");

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

/** Kernels include what formats and options mean. */
function sharedHeaders() {
  const backend = path.join(root, "native", "backend");
  const names = readdirSync(backend).filter((file) => file.endsWith(".h"));
  return names.sort().map((file) => path.join(backend, file));
}

/** Resolves to what the program printed. */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve(output) : reject(new Error(`${command} ${args.join(" ")} ended with ${code}:\n${output}`)),
    );
  });
}

/**
 * Compiles what is not in build/cuda, two at a time, the largest first. Returns the file of each source; what the assembler
 * said of its kernels lies beside it, in FILE.log.
 */
async function compile(compiler, version, folder) {
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  const sources = files.filter((file) => file.endsWith(".cu"));
  const options = [...flags, ...targetOptions(compiler), ...compressionOptions(version)];
  const cache = path.join(root, "build", "cuda");
  mkdirSync(cache, { recursive: true });
  const common = createHash("sha256").update([version, ...options].join("\n"));
  const headers = files.filter((file) => !file.endsWith(".cu")).map((file) => path.join(folder, file));
  for (const file of [...headers, ...sharedHeaders()])
    common.update(`\n${path.basename(file)}\n`).update(readFileSync(file));
  const images = new Map(
    sources.map((source) => {
      const hash = common
        .copy()
        .update(readFileSync(path.join(folder, source)))
        .digest("hex")
        .slice(0, 32);
      return [source, path.join(cache, `${path.basename(source, ".cu")}-${hash}.fatbin`)];
    }),
  );
  const bytes = (source) => statSync(path.join(folder, source)).size;
  const missing = sources.filter((source) => !existsSync(images.get(source))).sort((a, b) => bytes(b) - bytes(a));
  const worker = async () => {
    for (let source = missing.shift(); source !== undefined; source = missing.shift()) {
      const image = images.get(source);
      const output = await run(compiler, [...options, "-fatbin", path.join(folder, source), "-o", `${image}.new`]);
      writeFileSync(`${image}.log`, output);
      renameSync(`${image}.new`, image);
    }
  };
  await Promise.all([worker(), worker()]);
  const current = new Set(
    [...images.values()].flatMap((image) => [path.basename(image), `${path.basename(image)}.log`]),
  );
  for (const file of readdirSync(cache)) if (!current.has(file)) rmSync(path.join(cache, file));
  return images;
}

/** Words, which compilers read faster than bytes; fat binaries begin on a multiple of 8. */
function table(images, version) {
  const entries = [...images].map(([source, file]) => {
    const content = readFileSync(file);
    return { source, content, padded: Buffer.concat([content], Math.ceil(content.length / 8) * 8) };
  });
  const arrays = entries.map(({ padded }, index) => {
    const words = Array.from(
      { length: padded.length / 8 },
      (_, i) => `0x${padded.readBigUInt64LE(8 * i).toString(16)}`,
    );
    return `const uint64_t kImage${index}[] = {${words.join(",")}};`;
  });
  const header = path.join(root, "native", "cuda", "kernel_images.h").replaceAll("\\", "/");
  return [
    "#include <cstdint>",
    `#include "${header}"`,
    "namespace layerstream::cuda {",
    "namespace {",
    ...arrays,
    "}  // namespace",
    `const int kKernelVersion = ${version};`,
    "const KernelImage kKernelImages[] = {",
    ...entries.map(({ source, content }, index) => `    {"${source}", kImage${index}, ${content.length}},`),
    "    {nullptr, nullptr, 0},",
    "};",
    "}  // namespace layerstream::cuda",
    "",
  ].join("\n");
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
