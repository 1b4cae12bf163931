/**
 * Makes the drivers that tests run with where there is no GPU: libcuda.so.1 and HIP's runtime of test/native/cuda_driver, with the
 * kernels of native/cuda/kernels compiled for the host (test/native/cuda_host). Programs find them by name, as any other driver.
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const sourceFolders = ["test/native/cuda_driver", "test/native/cuda_host", "native/cuda/kernels"];
const headerFolders = [...sourceFolders, "native/backend", "native/platform", "native/cuda", "native/hip"];
const flags = ["-std=c++20", "-Wall", "-Wextra", "-pthread", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"];
/** Devices fault on what is not aligned. */
const alignmentFlags = ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"];
const kernelFlags = [
  ...["-x", "c++", "-Wno-unknown-pragmas", "-include", "test/native/cuda_host/cuda_host.h"],
  ...alignmentFlags,
];
/** Instead of what the addon embeds: not part of the driver. */
const images = "test/native/cuda_driver/kernel_images.cc";
const hipNames = "test/native/cuda_driver/hip.cc";

/** Drivers are looked for by this name, on Linux alone. */
export const canEmulateCuda = process.platform === "linux";

/** What programs look for: CUDA's driver, and the same as HIP's runtime. */
const names = { cuda: "libcuda.so.1", hip: "libamdhip64.so.7" };

/**
 * Compiles what is out of date, two files at a time.
 *
 * @param folder where objects and the drivers lie
 * @param modeFlags optimization and sanitizers
 * @returns the paths of both drivers, which lie in one folder
 */
export async function makeEmulatedDrivers({ folder, compiler = process.env.CXX ?? "c++", modeFlags = ["-O3"] }) {
  fs.mkdirSync(folder, { recursive: true });
  const headers = Math.max(...headerFolders.flatMap((name) => filesIn(name, /\.(h|cuh)$/)).map(modified));
  const units = sourceFolders
    .flatMap((name) => filesIn(name, /\.(cc|cu)$/))
    .filter((file) => file !== images)
    .map((file) => ({ file, object: path.join(folder, `${file.replaceAll("/", "-")}.o`) }));
  const rest = units.filter(({ file, object }) => modified(object) <= Math.max(modified(file), headers));
  const worker = async () => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift()) {
      const kind = next.file.endsWith(".cu") ? kernelFlags : [];
      await run(compiler, [...flags, ...modeFlags, ...kind, "-c", next.file, "-o", next.object]);
    }
  };
  await Promise.all([worker(), worker()]);
  const link = async (library, files) => {
    const driver = path.join(folder, library);
    const objects = files.map(({ object }) => object);
    if (objects.every((object) => modified(object) < modified(driver))) return driver;
    // Each calls its own functions, whichever a program has loaded first.
    const options = ["-shared", `-Wl,-soname,${library}`, "-Wl,-Bsymbolic"];
    if (!modeFlags.some((flag) => flag.startsWith("-fsanitize"))) options.push("-Wl,-z,defs");
    await run(compiler, [...flags, ...modeFlags, ...alignmentFlags, ...options, ...objects, "-o", `${driver}.new`]);
    fs.renameSync(`${driver}.new`, driver);
    return driver;
  };
  const ofCuda = units.filter(({ file }) => file !== hipNames);
  return { cuda: await link(names.cuda, ofCuda), hip: await link(names.hip, units) };
}

function filesIn(folder, pattern) {
  const absolute = path.join(root, folder);
  const names = fs.existsSync(absolute) ? fs.readdirSync(absolute) : [];
  return names
    .filter((name) => pattern.test(name))
    .sort()
    .map((name) => `${folder}/${name}`);
}

function modified(file) {
  return fs.statSync(path.resolve(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function run(command, args) {
  const [program, ...first] = command.split(" ");
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...first, ...args], { cwd: root, stdio: ["ignore", 2, 2] });
    child.on("error", (error) => reject(new Error(`Cannot run ${program}: ${error.message}`)));
    child.on("exit", (code) =>
      code === 0 ? resolve() : reject(new Error(`${command} ${args.join(" ")} ended with ${code}.`)),
    );
  });
}
