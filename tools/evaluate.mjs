/**
 * Perplexity and task accuracy of the demo model in each compression, as a table or as JSON.
 *
 *   node tools/evaluate.mjs [--compressions none,8bit,4bit] [--json]
 *
 * The held-out set and the definitions are those of tools/evaluate-demo.py, whose figures from transformers are in
 * test/fixtures/demo/evaluation.json; the arithmetic is layerstream's own.
 */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AutoModel, decompose } from "../dist/index.js";
import { heldOut } from "./demo-corpus.mjs";
import { readOptions } from "./options.mjs";

const TASK_TOKENS = 12;
export const demoModel = fileURLToPath(new URL("../test/fixtures/demo", import.meta.url));

/** exp of the mean negative log likelihood of every token but the first of each text, one window a text. */
export async function perplexity(model, texts) {
  let total = 0;
  let count = 0;
  for (const text of texts) {
    const ids = model.tokenizer.encode(text);
    const { logits, vocabSize } = await model.forward(ids);
    for (let position = 1; position < ids.length; position++) {
      const row = logits.subarray((position - 1) * vocabSize, position * vocabSize);
      total += logSumExp(row) - row[ids[position]];
    }
    count += ids.length - 1;
  }
  return Math.exp(total / count);
}

function logSumExp(values) {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of values) largest = Math.max(largest, value);
  let sum = 0;
  for (const value of values) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}

/** For each kind of task, how many greedy continuations begin with the answer. */
export async function exactMatch(model, tasks) {
  const results = {};
  for (const { kind, prompt, answer } of tasks) {
    results[kind] ??= { right: 0, total: 0 };
    results[kind].total++;
    const text = await model.generate(prompt, { maxNewTokens: TASK_TOKENS }).text();
    if (text.trimStart().startsWith(answer)) results[kind].right++;
  }
  return results;
}

/** Bits a weight that the matrices of the decoder layers take in a store, scales included. */
function bitsPerWeight(manifest) {
  let bytes = 0;
  let weights = 0;
  for (const { stages } of manifest.files) {
    for (const { name, tensors } of stages) {
      if (name !== "attention" && name !== "mlp") continue;
      for (const { shape, byteLength } of tensors.filter((tensor) => tensor.shape.length === 2)) {
        bytes += byteLength;
        weights += shape[0] * shape[1];
      }
    }
  }
  return (8 * bytes) / weights;
}

async function main() {
  const { values } = readOptions({
    options: { compressions: { type: "string", default: "none,8bit,4bit" }, json: { type: "boolean" } },
  });
  const directory = mkdtempSync(join(tmpdir(), "layerstream-evaluate-"));
  const { texts, tasks } = heldOut(1);
  try {
    const rows = [];
    for (const compression of values.compressions.split(",")) {
      const { store, manifest } = await decompose({
        checkpoint: demoModel,
        store: join(directory, compression),
        compression,
      });
      const model = await AutoModel.fromPretrained(store);
      const bytes = manifest.files
        .filter((file) => file.stages.length > 0)
        .reduce((sum, file) => sum + statSync(join(store, file.name)).size, 0);
      rows.push({
        compression,
        bitsPerWeight: bitsPerWeight(manifest),
        bytes,
        perplexity: await perplexity(model, texts),
        ...(await exactMatch(model, tasks)),
      });
      await model.dispose();
    }
    if (values.json) console.log(JSON.stringify(rows));
    else printTable(rows);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function printTable(rows) {
  const share = ({ right, total }) => `${right}/${total}`;
  const columns = ["compression", "bits/weight", "store MB", "perplexity", "recall", "counting", "arithmetic"];
  console.log(columns.map((name) => name.padEnd(12)).join(""));
  for (const row of rows) {
    const cells = [
      row.compression,
      row.bitsPerWeight.toFixed(3),
      (row.bytes / 1e6).toFixed(2),
      row.perplexity.toFixed(4),
      share(row.recall),
      share(row.counting),
      share(row.arithmetic),
    ];
    console.log(cells.map((cell) => cell.padEnd(12)).join(""));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
