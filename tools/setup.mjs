#!/usr/bin/env node
/**
 * Everything a fresh clone needs, and nothing when it is up to date: dependencies from package-lock.json, then
 * tools/build.mjs. `npm test`, `npm run demo` and `npm run bench` start with it.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { build, root, runMain, SetupError } from "./build.mjs";
import { withLock } from "./lock.mjs";

const requiredNode = 20;

/** True when every package of the lock file is installed in its version; optional ones may be absent. */
function dependenciesAreFresh() {
  const installedFile = path.join(root, "node_modules", ".package-lock.json");
  if (!fs.existsSync(installedFile)) return false;
  const locked = readPackages(path.join(root, "package-lock.json"));
  const installed = readPackages(installedFile);
  return Object.entries(locked).every(([name, { version, optional, devOptional }]) => {
    if (name === "") return true;
    return installed[name] ? installed[name].version === version : Boolean(optional || devOptional);
  });
}

function readPackages(file) {
  try {
    return JSON.parse(fs.readFileSync(file, "utf8")).packages ?? {};
  } catch (error) {
    throw new SetupError(`${file} cannot be read (${error.message}). Restore it: \`git checkout package-lock.json\`.`);
  }
}

function install() {
  console.error("layerstream: installing dependencies from package-lock.json ...");
  const options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
  const cli = process.env.npm_execpath;
  const stdio = ["ignore", 2, 2];
  const result =
    cli && path.basename(cli) === "npm-cli.js"
      ? spawnSync(process.execPath, [cli, ...options], { cwd: root, stdio })
      : spawnSync("npm", options, { cwd: root, stdio, shell: process.platform === "win32" });
  if (result.error?.code === "ENOENT") throw new SetupError("npm is not on the PATH. Install Node.js with npm.");
  if (result.status !== 0) throw new SetupError("`npm ci` failed (see above). Check the network, then run it again.");
}

await runMain(async () => {
  if (Number.parseInt(process.versions.node, 10) < requiredNode) {
    throw new SetupError(`Node.js ${process.versions.node} is too old. Install version ${requiredNode} or newer.`);
  }
  if (!dependenciesAreFresh()) {
    await withLock(path.join(root, "build", "setup.lock"), async () => {
      if (!dependenciesAreFresh()) install();
    });
  }
  await build();
});
