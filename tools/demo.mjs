#!/usr/bin/env node
/**
 * `npm run demo`: decomposes the small model that comes with the repository and streams a story from disk, in the
 * least memory that works, then shows what that cost. It runs the same API that programs use.
 */
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { formatStats } from "../dist/cli/stats-table.js";
import { decompose } from "../dist/decompose/decompose.js";
import { measureDiskRate } from "../dist/engine/roofline.js";
import { AutoModel } from "../dist/index.js";
import { formatBytes, formatDuration, formatRate, parseBytes } from "../dist/units.js";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const checkpoint = path.join(root, "test", "fixtures", "demo");
const prompt = "One morning";
const newTokens = 240;
const rooflineSeconds = 0.5;

const color = process.stdout.isTTY && !process.env.NO_COLOR;
const paint = (code, text) => (color ? `\u001b[${code}m${text}\u001b[0m` : text);
const heading = (text) => console.log(`\n${paint("1;36", text)}`);

/** A budget that cannot work is refused at once, with the least one that would: that is the one to take. */
async function leastBudget(store) {
  try {
    await (await AutoModel.fromPretrained(store, { memory: "1MiB" })).dispose();
  } catch (error) {
    const least = /\d+MiB/.exec(error.remedy ?? "");
    if (error.code !== "MEMORY_BUDGET_TOO_SMALL" || !least) throw error;
    console.log(`  asked for 1 MiB: ${paint(33, `${error.code}: ${error.message}`)}`);
    return least[0];
  }
  throw new Error("A budget of 1 MiB was accepted.");
}

async function main(store) {
  heading("1. Decompose: the checkpoint is written anew, in the order in which it is executed");
  const started = performance.now();
  const { manifest } = await decompose({ checkpoint, store });
  const bytes = manifest.files.reduce((sum, { size }) => sum + size, 0);
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `  ${manifest.files.length} files, ${formatBytes(bytes)} in ${formatDuration(seconds)}: ${path.relative(root, store)}`,
  );

  heading("2. Load: within a budget for the whole process");
  const memory = await leastBudget(store);
  const model = await AutoModel.fromPretrained(store, { memory });
  const { heldBytes, streamedBytes, runtimeBytes } = model.residency();
  console.log(
    `  taking ${formatBytes(parseBytes(memory, "memory"))}, of which Node.js itself needs ${formatBytes(runtimeBytes)}: ` +
      `${formatBytes(heldBytes)} of the weights are held, ${formatBytes(streamedBytes)} come from disk for every token`,
  );

  heading("3. Generate");
  process.stdout.write(`  ${paint(1, prompt)}`);
  for await (const { text } of model.generate(prompt, { maxNewTokens: newTokens })) {
    process.stdout.write(text.replaceAll("\n", "\n  "));
  }
  const stats = model.stats();
  await model.dispose();

  heading("\n4. What it cost");
  const raw = await measureDiskRate(store, rooflineSeconds);
  console.log(formatStats(stats, [["raw disk rate", formatRate(raw)]]));
  console.log(`
Now yours: ${paint(1, "npx layerstream generate <checkpoint> -p <text> --memory 4GiB --stats")}
`);
}

fs.mkdirSync(path.join(root, "build"), { recursive: true });
const folder = fs.mkdtempSync(path.join(root, "build", "demo-"));
const cleanUp = () => fs.rmSync(folder, { recursive: true, force: true });
process.once("SIGINT", () => {
  cleanUp();
  process.exit(130);
});
try {
  await main(path.join(folder, "store"));
} catch (error) {
  console.error(`demo: ${error.code ?? "INTERNAL"}: ${error.message}`);
  process.exitCode = 1;
} finally {
  cleanUp();
}
