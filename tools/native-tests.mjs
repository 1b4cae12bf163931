#!/usr/bin/env node
/**
 * Compiles the CPU device and the streaming runtime with the programs of test/native by the C++ compiler alone (no
 * Node, no addon), and runs them.
 *
 *   node tools/native-tests.mjs [--bench] [--plain] [--thread] [--arm64] [--no-run] [name ...]
 *
 * Without options: every test/native/*_test.cc, under the address and undefined-behaviour sanitizers.
 * --bench   the *_bench.cc instead, with the addon's own objects
 * --plain   tests without sanitizers, of the addon's own objects
 * --thread  those with threads under the thread sanitizer, computing with the scalar kernels
 * --arm64   with aarch64-linux-gnu-g++, run by qemu-aarch64 (Debian: g++-aarch64-linux-gnu, qemu-user)
 * --no-run  builds the programs and leaves them in build/native-tests; those without sanitizers for the system's CUDA driver
 * name      only programs whose names start so
 *
 * CXX names another compiler. Objects are kept in build/native-tests.
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "./build.mjs";
import { canEmulateCuda, makeEmulatedDrivers } from "./emulated-cuda.mjs";
import { readOptions } from "./options.mjs";

const SLOW_SECONDS = 10;
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const { values: options, positionals: names } = readOptions({
  allowPositionals: true,
  options: {
    bench: { type: "boolean" },
    plain: { type: "boolean" },
    thread: { type: "boolean" },
    arm64: { type: "boolean" },
    "no-run": { type: "boolean" },
  },
});

/** The objects that node-gyp made for the addon are what is linked. */
const shipped = (options.bench || options.plain) && !options.arm64;
const optimized = shipped || options.arm64;
const compiler = process.env.CXX ?? (options.arm64 ? "aarch64-linux-gnu-g++" : "c++");
const emulator = options.arm64 ? ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"] : [];
const sanitizers = options.thread ? "thread" : "address,undefined";
const modeFlags = optimized ? ["-O3"] : ["-O1", "-g1", `-fsanitize=${sanitizers}`, "-fno-sanitize-recover=all"];
const commonFlags = ["-std=c++20", "-Wall", "-Wextra", "-pthread", "-ffp-contract=off"];
const mode = options.arm64 ? "arm64" : optimized ? "plain" : options.thread ? "thread" : "sanitized";
const folder = path.join(root, "build", "native-tests", mode);
/** Where node-gyp leaves the addon's own objects. */
const addonFolder = path.join("build", "Release", "obj.target", "layerstream");
/** Whether tests run with drivers of CUDA and HIP of their own, whatever the system has. */
const emulatesCuda = canEmulateCuda && !options.bench && !options.thread && !options.arm64 && !options["no-run"];
/** Drivers of OpenCL are not instrumented: under the thread sanitizer, there are none. */
const environment = options.thread
  ? { ...process.env, LAYERSTREAM_SIMD: "scalar", OCL_ICD_VENDORS: path.join(folder, "no-drivers") }
  : { ...process.env };
/** Programs whose own threads, or those of what they test, meet. */
const threaded = [
  ...["blocks", "choice", "decoders", "device", "experts", "kv_spill", "read_faults", "reader", "runtime", "tape"],
  ...["thread_pool", "trace", "transfer"],
];
/** Lanes are many temporaries, and so are the problems of tests; checking when each ends takes the compiler up to three times as long. */
const kernelFlags = optimized ? [] : ["-fno-sanitize-address-use-after-scope"];
/** The flags that binding.gyp gives each instruction set's folder on x64. */
function instructionSetFlags() {
  const gyp = JSON.parse(fs.readFileSync(path.join(root, "binding.gyp"), "utf8"));
  const flags = new Map();
  for (const { target_name: name, conditions } of gyp.targets) {
    const match = /^kernels_(.+)$/.exec(name);
    if (match) flags.set(match[1], options.arm64 ? [] : [...conditions[0][1].cflags, ...kernelFlags]);
  }
  return flags;
}

function sourcesIn(directory, suffix) {
  const files = fs.readdirSync(path.join(root, directory)).filter((file) => file.endsWith(suffix));
  return files.sort().map((file) => path.join(directory, file));
}

/** Everything but what is Node's. */
function sourcesBelow(directory) {
  const instructionSets = instructionSetFlags();
  const flagsOf = (folder) => instructionSets.get(folder) ?? (folder === "scalar" ? kernelFlags : []);
  const files = fs.readdirSync(path.join(root, directory), { recursive: true, encoding: "utf8" });
  return files
    .filter((file) => file.endsWith(".cc") && path.dirname(file) !== ".")
    .sort()
    .map((file) => ({ file: path.join(directory, file), flags: flagsOf(path.basename(path.dirname(file))) }));
}

function modified(file) {
  return fs.statSync(path.join(root, file), { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function bytesOf(file) {
  return fs.statSync(path.join(root, file)).size;
}

function newestHeader(directory) {
  const files = fs.readdirSync(path.join(root, directory), { recursive: true, encoding: "utf8" });
  const headers = files.filter((file) => file.endsWith(".h")).map((file) => path.join(directory, file));
  return Math.max(...[...headers, "binding.gyp", "tools/native-tests.mjs"].map(modified));
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", env: environment });
    child.on("error", (error) => reject(new Error(`Cannot run ${command}: ${error.message}`)));
    child.on("exit", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`${path.basename(command)} failed (${signal ?? `exit code ${code}`}).`));
    });
  });
}

/** Does `work` for all items, as many at a time as there are processors. */
async function inParallel(items, work) {
  const rest = [...items];
  const worker = async () => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift()) await work(next);
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

/** What is slow shows in the log. */
async function timed(what, work) {
  const begin = performance.now();
  const result = await work();
  const seconds = Math.round((performance.now() - begin) / 1000);
  if (seconds >= SLOW_SECONDS) console.log(`native-tests: ${what} took ${seconds} s`);
  return result;
}

/** Compiles what is out of date. Returns the object of each source. */
async function compile(sources) {
  const headers = newestHeader("native");
  const testHeaders = Math.max(headers, newestHeader("test/native"));
  const objects = new Map(sources.map(({ file }) => [file, path.join(folder, `${file.replaceAll(/[/\\]/g, "-")}.o`)]));
  const stale = sources.filter(({ file }) => {
    const built = modified(path.relative(root, objects.get(file)));
    return built <= modified(file) || built <= (file.startsWith(path.join("test", "native")) ? testHeaders : headers);
  });
  await inParallel(stale, ({ file, flags }) =>
    run(compiler, [...commonFlags, ...modeFlags, ...flags, "-c", file, "-o", objects.get(file)]),
  );
  return objects;
}

/** The instruction set whose kernels the source has, if the addon has a target for it. */
function instructionSetOf(file) {
  const set = path.basename(path.dirname(file));
  return instructionSetFlags().has(set) ? set : undefined;
}

/** Where node-gyp leaves the object of a source. */
function addonObject(file) {
  const set = instructionSetOf(file);
  const target = set === undefined ? "layerstream" : `kernels_${set}`;
  return path.join(path.dirname(addonFolder), target, file.replace(/\.cc$/, ".o"));
}

/** The source that binding.gyp makes of the OpenCL kernels; left alone if it would be the same. */
async function embedKernels() {
  const file = path.join("build", "native-tests", "opencl_kernels.cc");
  await run(process.execPath, ["tools/embed-kernels.cjs", "native/opencl/kernels", `${file}.new`]);
  const same =
    fs.existsSync(path.join(root, file)) &&
    fs.readFileSync(path.join(root, file)).equals(fs.readFileSync(path.join(root, `${file}.new`)));
  if (!same) fs.renameSync(path.join(root, `${file}.new`), path.join(root, file));
  return { file, flags: [] };
}

/** PoCL's compiler leaves something behind now and then; where in it, a release build does not say. */
function ignoreLeaksOfDrivers() {
  const file = path.join(folder, "leaks-of-others");
  fs.writeFileSync(file, "leak:libpocl.so\nleak:libLLVM\n");
  environment.LSAN_OPTIONS = `suppressions=${file}:print_suppressions=0`;
}

async function main() {
  fs.mkdirSync(folder, { recursive: true });
  if (mode === "sanitized") ignoreLeaksOfDrivers();
  const sources = sourcesBelow("native");
  const programs = sourcesIn("test/native", options.bench ? "_bench.cc" : "_test.cc")
    .filter((file) => names.length === 0 || names.some((name) => path.basename(file).startsWith(name)))
    .filter((file) => !options.thread || threaded.includes(path.basename(file, "_test.cc")));
  if (programs.length === 0)
    throw new Error(`No program in test/native has a name that starts with ${names.join(", ")}.`);

  // Under the thread sanitizer, kernels of instruction sets are only linked.
  const linked = shipped ? sources : options.thread ? sources.filter(({ file }) => instructionSetOf(file)) : [];
  if (linked.length > 0) await build({ addonOnly: true });
  const embedded = [await embedKernels()];
  // What tests do not run on the driver made for them takes the system's, with the kernels of the addon.
  if (!shipped || emulatesCuda)
    embedded.push({ file: path.join("test", "native", "cuda_driver", "kernel_images.cc"), flags: [] });
  const compiled = [
    ...embedded,
    ...sources.filter((source) => !linked.includes(source)),
    ...programs.map((file) => ({ file, flags: kernelFlags })),
  ];
  const objects = await timed("compiling", () => compile(compiled));
  if (emulatesCuda) {
    const made = makeEmulatedDrivers({ folder: path.join(folder, "cuda"), compiler, modeFlags });
    const drivers = await timed("compiling drivers for tests", () => made);
    const others = process.env.LD_LIBRARY_PATH ? [process.env.LD_LIBRARY_PATH] : [];
    environment.LD_LIBRARY_PATH = [path.dirname(drivers.cuda), ...others].join(":");
  }
  const library = sources.map((source) =>
    linked.includes(source) ? addonObject(source.file) : objects.get(source.file),
  );
  library.push(...embedded.map(({ file }) => objects.get(file)));
  if (shipped && !emulatesCuda)
    library.push(...["cuda", "hip"].map((name) => path.join(addonFolder, "gen", `${name}_kernels.o`)));
  const test = async (file) => {
    const program = path.join(folder, path.basename(file, ".cc"));
    await run(compiler, [...commonFlags, ...modeFlags, ...library, objects.get(file), "-o", program]);
    if (options["no-run"]) return;
    const [command, ...args] = [...emulator, program];
    await timed(path.basename(program), () => run(command, args));
  };
  // The largest first, so that none is left to run alone; benchmarks need the machine for themselves.
  if (!options.bench)
    return inParallel(
      programs.sort((a, b) => bytesOf(b) - bytesOf(a)),
      test,
    );
  for (const file of programs) await test(file);
}

try {
  await main();
} catch (error) {
  console.error(`native-tests: ${error.message}`);
  process.exitCode = 1;
}
