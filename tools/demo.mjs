#!/usr/bin/env node
/**
 * `npm run demo`: what layerstream does, shown with its own commands, in well under three minutes. A small trained
 * model tells a story; then a larger random one streams from disk in less memory than its weights need.
 */
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../dist/units.js";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const main = path.join(root, "dist", "cli", "main.js");
const prompt = "Once upon a time there was a brave girl called Mia. She lived in a castle";
const largeShape = "--hidden 1024 --intermediate 4096 --heads 16 --kv-heads 4 --layers 12 --vocab 2000";

const color = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code, text) => (color ? `\u001b[${code}m${text}\u001b[0m` : text);
const heading = (text) => console.log(`\n${paint("1;36", text)}`);
const shown = (argument) => (/\s/.test(argument) ? JSON.stringify(argument) : argument);

/** Runs a program of this repository and resolves to its exit code and what it wrote to stderr. */
function run(script, args) {
  const child = spawn(process.execPath, [script, ...args], { cwd: root, stdio: ["ignore", "inherit", "pipe"] });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    errors += text;
    process.stderr.write(text);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject).on("close", (exitCode) => resolve({ exitCode, errors }));
  });
}

/** Runs a layerstream command after showing it. */
async function layerstream(...args) {
  console.log(paint(1, `\n$ layerstream ${args.map(shown).join(" ")}`));
  return run(main, args);
}

async function must(result) {
  const { exitCode } = await result;
  if (exitCode !== 0) throw new Error(`A command of the demo ended with exit code ${exitCode}.`);
}

/** A budget that cannot work is refused at once, with the least that does: the demo takes that one. */
async function leastBudget(store) {
  const { errors } = await layerstream("generate", store, "--tokens", "1", "--memory", "1MiB");
  const least = /MEMORY_BUDGET_TOO_SMALL.*Give it (\d+MiB)/.exec(errors);
  if (!least) throw new Error("A budget of 1 MiB was not refused.");
  return least[1];
}

async function demonstrate(folder) {
  heading("A small model, trained for this demo, streamed from disk for every token");
  const story = path.join(folder, "story");
  await must(layerstream("decompose", "test/fixtures/demo", "-o", story));
  const storyBudget = await leastBudget(story);
  await must(layerstream("generate", story, "-p", prompt, "--memory", storyBudget, "--no-hold", "--stats"));

  heading("A model that needs more memory than it gets: random weights, measured against the disk");
  const checkpoint = path.join(folder, "random");
  const large = path.join(folder, "random-store");
  await must(run(path.join(root, "tools", "make-checkpoint.mjs"), [checkpoint, ...largeShape.split(" ")]));
  await must(layerstream("decompose", checkpoint, "-o", large));
  await must(layerstream("bench", large, "--memory", await leastBudget(large), "--roofline-seconds", "1"));

  heading("Now yours");
  console.log("  layerstream generate <checkpoint> -p <text> --memory 4GiB --stats");
  console.log("  layerstream chat test/fixtures/demo\n");
}

const needed = 1.5 * 2 ** 30;
const build = path.join(root, "build");
fs.mkdirSync(build, { recursive: true });
const { bavail, bsize } = fs.statfsSync(build);
const folder = path.relative(root, fs.mkdtempSync(path.join(build, "demo-")));
const cleanUp = () => fs.rmSync(path.join(root, folder), { recursive: true, force: true });
// Ctrl-C reaches the running command too; what it wrote goes with the folder.
process.once("SIGINT", () => {
  process.exitCode = 130;
});
try {
  if (bavail * bsize < needed) throw new Error(`${build} needs ${formatBytes(needed)} of free space for a while.`);
  await demonstrate(folder);
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode ??= 1;
} finally {
  cleanUp();
}
