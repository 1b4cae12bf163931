/**
 * Reference cases on a device: one JSON object with how many were run and what differs.
 *
 *   node tools/measure/golden.mjs DEVICE DIRECTORY ...
 *
 * Each case (a checkpoint with expected.json and expected.safetensors) runs held and streamed: logits within 1e-3 of the
 * largest, the same greedy tokens, and the same bits both times.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { AutoModel } from "../../dist/index.js";
import { supportedModelTypes } from "../../dist/models/registry.js";

const [device, ...directories] = process.argv.slice(2);
const cacheDir = fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-golden-"));

const readJson = (file) => JSON.parse(fs.readFileSync(file, "utf8"));

function readLogits(file) {
  const bytes = fs.readFileSync(file);
  const data = 8 + Number(bytes.readBigUInt64LE(0));
  const [begin, end] = JSON.parse(bytes.toString("utf8", 8, data)).logits.data_offsets;
  return new Float32Array(Uint8Array.from(bytes.subarray(data + begin, data + end)).buffer);
}

/** Not less than 0, and Infinity where a number is none. */
function relativeError(got, expected) {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const errors = expected.map((value, index) => Math.abs(got[index] - value));
  return got.length === expected.length && errors.every((error) => error >= 0)
    ? errors.reduce((most, error) => Math.max(most, error), 0) / largest
    : Number.POSITIVE_INFINITY;
}

/** What is wrong with the case, if anything, and its error. */
async function run(directory) {
  const { input_ids: tokens, greedy, greedy_cached: cached = greedy } = readJson(path.join(directory, "expected.json"));
  const expected = readLogits(path.join(directory, "expected.safetensors"));
  let bits;
  let error = 0;
  for (const hold of [true, false]) {
    const model = await AutoModel.fromPretrained(directory, { cacheDir, device, hold });
    try {
      const { logits } = await model.forward(tokens);
      error = Math.max(error, relativeError(logits, expected));
      if (!(error < 1e-3)) return { error, problem: `logits differ by ${error}` };
      bits ??= logits;
      if (logits.some((value, index) => value !== bits[index]))
        return { error, problem: "streamed, other bits than held" };
      const got = await model.generate(tokens, { maxNewTokens: cached.length, ignoreEos: true }).tokens();
      if (got.join() !== cached.join()) return { error, problem: `tokens ${got} instead of ${cached}` };
    } finally {
      await model.dispose();
    }
  }
  return { error };
}

const isCase = (directory) =>
  ["expected.json", "expected.safetensors", "config.json"].every((name) => fs.existsSync(path.join(directory, name))) &&
  fs.readdirSync(directory).some((name) => /^(model.*\.safetensors|pytorch_model.*\.bin)$/.test(name)) &&
  supportedModelTypes.includes(readJson(path.join(directory, "config.json")).model_type);

const outcome = { cases: 0, worst: 0, problems: [] };
try {
  const cases = directories
    .filter((parent) => fs.existsSync(parent))
    .flatMap((parent) => fs.readdirSync(parent).map((name) => path.join(parent, name)))
    .filter(isCase);
  for (const directory of cases) {
    const { error = 0, problem } = await run(directory).catch(({ message }) => ({ problem: message }));
    outcome.cases++;
    outcome.worst = Math.max(outcome.worst, error);
    if (problem !== undefined) outcome.problems.push(`${path.basename(directory)}: ${problem}`);
  }
} finally {
  fs.rmSync(cacheDir, { recursive: true, force: true });
}
console.log(JSON.stringify(outcome));
