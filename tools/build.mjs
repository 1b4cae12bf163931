#!/usr/bin/env node
/**
 * Builds what is out of date: the native addon (build/Release/layerstream.node) and, in a source tree, dist/.
 *
 *   node tools/build.mjs [--addon] [--force] [--verbose]
 *
 * --addon builds the addon only, --force builds although nothing changed, --verbose shows the compiler's output.
 * It needs node-gyp (from node_modules, or the one inside npm), a C++20 compiler, make and python3, and uses Node's
 * own modules only, so that it runs before anything is installed and inside an installed package.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { withLock } from "./lock.mjs";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const buildFolder = path.join(root, "build");
const addonFile = path.join(buildFolder, "Release", "layerstream.node");

/** A failure that is reported as one line, without a stack. */
export class SetupError extends Error {}

/** Builds the addon and then the TypeScript, each only when its sources changed since the last successful build. */
export async function build({ addonOnly = false, force = false, verbose = false } = {}) {
  await withLock(path.join(buildFolder, "setup.lock"), async () => {
    buildAddon(force, verbose);
    if (!addonOnly && fs.existsSync(path.join(root, "src"))) buildTypeScript(force);
  });
}

function buildAddon(force, verbose) {
  const sources = [
    path.join(root, "binding.gyp"),
    ...fs
      .readFileSync(path.join(root, "binding.gyp"), "utf8")
      .match(/tools\/[\w-]+\.\w+/g)
      .map((script) => path.join(root, script)),
    ...filesUnder(path.join(root, "native")),
  ];
  const compilers = ["./embed-cuda-kernels.cjs", "./embed-hip-kernels.cjs"].map((script) => {
    const { findCompiler, identify } = createRequire(import.meta.url)(script);
    return identify(findCompiler());
  });
  const hash = hashOf(sources, [process.platform, process.arch, ...compilers].join(" "));
  const stamp = path.join(buildFolder, "addon.stamp");
  if (!force && fs.existsSync(addonFile) && readStamp(stamp) === hash) return;

  requireTools();
  const command = [findNodeGyp(), "configure", "build", "--jobs=max"];
  const nodeFolder = path.resolve(path.dirname(process.execPath), "..");
  if (fs.existsSync(path.join(nodeFolder, "include", "node", "node_api.h"))) command.push(`--nodedir=${nodeFolder}`);
  console.error("layerstream: building the native addon (a minute or two) ...");
  fs.rmSync(stamp, { force: true });
  runLogged("The native addon", "addon.log", process.execPath, command, verbose);
  if (!fs.existsSync(addonFile)) throw new SetupError(`node-gyp ended without writing ${addonFile}.`);
  fs.writeFileSync(stamp, hash);
}

function buildTypeScript(force) {
  const sourceFolder = path.join(root, "src");
  const sources = filesUnder(sourceFolder).filter((file) => file.endsWith(".ts"));
  const compiler = path.join(root, "node_modules", "typescript", "bin", "tsc");
  if (!fs.existsSync(compiler)) throw new SetupError("TypeScript is not installed. Run `node tools/setup.mjs`.");
  const hash = hashOf([path.join(root, "tsconfig.json"), path.join(root, "package.json"), ...sources], "");
  const stamp = path.join(buildFolder, "typescript.stamp");
  const output = path.join(root, "dist");
  const entry = path.join(output, "cli", "main.js");
  if (!force && fs.existsSync(entry) && readStamp(stamp) === hash) return;

  console.error("layerstream: compiling the TypeScript ...");
  fs.rmSync(stamp, { force: true });
  runLogged(
    "The TypeScript",
    "typescript.log",
    process.execPath,
    [compiler, "-p", path.join(root, "tsconfig.json")],
    true,
  );
  removeOrphans(output, sourceFolder);
  if (fs.existsSync(entry)) fs.chmodSync(entry, 0o755);
  fs.writeFileSync(stamp, hash);
}

/** Deletes outputs whose source is gone; the others stay in place for processes that are using them. */
function removeOrphans(output, sourceFolder) {
  for (const file of filesUnder(output)) {
    const source = path.join(sourceFolder, path.relative(output, file).replace(/(\.d\.ts|\.js|\.js\.map)$/, ".ts"));
    if (!fs.existsSync(source)) fs.rmSync(file, { force: true });
  }
}

function requireTools() {
  if (process.platform === "win32") return;
  const mac = process.platform === "darwin";
  const remedy = (packages) =>
    mac
      ? "Install Apple's command line tools: `xcode-select --install`."
      : `Install it: \`sudo apt-get install ${packages}\`, or your system's equivalent.`;
  const compilers = process.env.CXX ? [process.env.CXX.split(" ")[0]] : ["c++", "g++", "clang++"];
  if (!compilers.some(runs))
    throw new SetupError(`No C++ compiler found (tried ${compilers.join(", ")}). ${remedy("build-essential")}`);
  if (!runs("make")) throw new SetupError(`No make found. ${remedy("build-essential")}`);
  const pythons = [process.env.npm_config_python, process.env.PYTHON, "python3", "python"].filter(Boolean);
  if (!pythons.some(runs))
    throw new SetupError(`No Python 3 found, which node-gyp needs to build the addon. ${remedy("python3")}`);
}

function runs(program) {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
}

function findNodeGyp() {
  const npmPrograms = [process.env.npm_execpath, ...npmOnPath()].filter(Boolean);
  for (const from of [path.join(root, "package.json"), ...npmPrograms]) {
    try {
      return createRequire(fs.realpathSync(from)).resolve("node-gyp/bin/node-gyp.js");
    } catch {
      // Not here: the next place may have it.
    }
  }
  throw new SetupError(
    "No node-gyp found, neither in node_modules nor inside npm. Install it: `npm install -g node-gyp`.",
  );
}

function npmOnPath() {
  const nodeFolder = path.dirname(process.execPath);
  const folders = [nodeFolder, ...(process.env.PATH ?? "").split(path.delimiter)];
  const cli = path.join("node_modules", "npm", "bin", "npm-cli.js");
  return [
    path.join(nodeFolder, cli),
    path.join(nodeFolder, "..", "lib", cli),
    ...folders.flatMap((folder) => [path.join(folder, "npm"), path.join(folder, "node-gyp")]),
  ].filter((file) => fs.existsSync(file));
}

function runLogged(what, logName, program, commandArguments, show) {
  fs.mkdirSync(buildFolder, { recursive: true });
  const logFile = path.join(buildFolder, logName);
  const log = show ? undefined : fs.openSync(logFile, "w");
  const result = spawnSync(program, commandArguments, { cwd: root, stdio: ["ignore", log ?? 2, log ?? 2] });
  if (log !== undefined) fs.closeSync(log);
  if (result.status === 0) return;
  if (log !== undefined) console.error(fs.readFileSync(logFile, "utf8").split("\n").slice(-40).join("\n"));
  throw new SetupError(
    `${what} failed to build (see above${log === undefined ? "" : `; all of it is in ${logFile}`}).`,
  );
}

function filesUnder(folder) {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}

function hashOf(files, salt) {
  const hash = createHash("sha256").update(salt);
  for (const file of files) hash.update(`\n${path.relative(root, file)}\n`).update(fs.readFileSync(file));
  return hash.digest("hex");
}

function readStamp(file) {
  return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
}

/** Runs `main`; a SetupError ends the process with one line and exit code 1. */
export async function runMain(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`layerstream: ${error.message}`);
    process.exitCode = 1;
  }
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const given = new Set(process.argv.slice(2));
  const options = {
    addonOnly: given.delete("--addon"),
    force: given.delete("--force"),
    verbose: given.delete("--verbose"),
  };
  await runMain(async () => {
    if (given.size > 0)
      throw new SetupError(`Unknown argument ${[...given].join(" ")}. Known: --addon, --force, --verbose.`);
    await build(options);
  });
}
