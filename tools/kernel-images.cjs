// Compiles the GPU kernels of native/cuda/kernels and writes them as a table of images (native/cuda/kernel_images.h), for
// embed-cuda-kernels.cjs and embed-hip-kernels.cjs.
const { spawn } = require("node:child_process");
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

/** Kernels include what formats and options mean. */
function sharedHeaders() {
  const backend = path.join(root, "native", "backend");
  const names = readdirSync(backend).filter((file) => file.endsWith(".h"));
  return names.sort().map((file) => path.join(backend, file));
}

/** Resolves to what the program printed. */
function run(command, args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
    child.on("error", reject);
    child.on("close", (code) =>
      code === 0 ? resolve(output) : reject(new Error(`${command} ${args.join(" ")} ended with ${code}:\n${output}`)),
    );
  });
}

/**
 * Compiles the .cu files of a folder that are not in the cache, two at a time, the largest first. Returns the image of each
 * source; what the compiler said lies beside it, in IMAGE.log.
 *
 * @param folder of the sources and their headers
 * @param cache a folder below build/; images are named by the hash of what they are made from, others are deleted
 * @param compiler path of the program, which takes `[...options, SOURCE, "-o", IMAGE]`
 * @param version of the compiler
 * @param excluded names of sources that are left out
 */
async function compileKernels({ folder, cache: name, compiler, version, options, env = process.env, excluded = [] }) {
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  const sources = files.filter((file) => file.endsWith(".cu") && !excluded.includes(file));
  const cache = path.join(root, "build", name);
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
      return [source, path.join(cache, `${path.basename(source, ".cu")}-${hash}.image`)];
    }),
  );
  const bytes = (source) => statSync(path.join(folder, source)).size;
  const missing = sources.filter((source) => !existsSync(images.get(source))).sort((a, b) => bytes(b) - bytes(a));
  const worker = async () => {
    for (let source = missing.shift(); source !== undefined; source = missing.shift()) {
      const image = images.get(source);
      const output = await run(compiler, [...options, path.join(folder, source), "-o", `${image}.new`], env);
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

/**
 * A C++ source with `kKernelImages`, and `constants` before it. Words, which compilers read faster than bytes; drivers want
 * images to begin on a multiple of 8, or of a page.
 *
 * @param header which declares all of it, below native/
 */
function imageTable({ images, header, namespace, alignment, constants }) {
  const entries = [...images].map(([source, file]) => {
    const content = readFileSync(file);
    return { source, content, padded: Buffer.concat([content], Math.ceil(content.length / 8) * 8) };
  });
  const arrays = entries.map(({ padded }, index) => {
    const words = Array.from(
      { length: padded.length / 8 },
      (_, i) => `0x${padded.readBigUInt64LE(8 * i).toString(16)}`,
    );
    return `alignas(${alignment}) const uint64_t kImage${index}[] = {${words.join(",")}};`;
  });
  return [
    "#include <cstdint>",
    `#include "${path.join(root, "native", header).replaceAll("\\", "/")}"`,
    `namespace ${namespace} {`,
    "namespace {",
    ...arrays,
    "}  // namespace",
    ...constants,
    "const cuda::KernelImage kKernelImages[] = {",
    ...entries.map(({ source, content }, index) => `    {"${source}", kImage${index}, ${content.length}},`),
    "    {nullptr, nullptr, 0},",
    "};",
    `}  // namespace ${namespace}`,
    "",
  ].join("\n");
}

module.exports = { compileKernels, imageTable };
