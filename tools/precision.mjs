#!/usr/bin/env node
/**
 * What `precision: "fast"` does to logits, of every reference case in directories of such cases (a checkpoint with
 * expected.json and expected.safetensors): the largest difference from float32 over the largest logit.
 *
 *   node tools/precision.mjs [--compression 4bit] [DIRECTORY ...]        default: test/fixtures/families
 *
 * prompt: all tokens in one pass.  decode: one token after the other. Both against the same with `precision: "exact"`.
 */
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { formatTable } from "../dist/cli/table.js";
import { Engine } from "../dist/engine/engine.js";
import { AutoModel } from "../dist/index.js";
import { architectureOf } from "../dist/models/registry.js";
import { logitsOf } from "./measure/logits.mjs";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: { compression: { type: "string" } },
});
const directories = positionals.length > 0 ? positionals : ["test/fixtures/families"];
const cacheDir = fs.mkdtempSync(path.join(os.tmpdir(), "layerstream-precision-"));

function difference(got, expected) {
  let largest = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    error = Math.max(error, Math.abs(got[i] - expected[i]));
  }
  return error / largest;
}

function describe([prompt, decode]) {
  return `prompt ${prompt.toExponential(1)}  decode ${decode.toExponential(1)}`;
}

async function measure(directory) {
  const model = await AutoModel.fromPretrained(directory, {
    cacheDir,
    compression: values.compression,
    requantize: true,
  });
  const { store } = model.engine;
  await model.dispose();
  const architecture = architectureOf(store.manifest.config, directory);
  const { input_ids } = JSON.parse(fs.readFileSync(path.join(directory, "expected.json"), "utf8"));
  // Twice: products of a few tokens are done as those of one.
  const tokens = [...input_ids, ...input_ids];
  const logits = {};
  for (const precision of ["exact", "fast"]) {
    const engine = await Engine.open(store, architecture, {
      budgetBytes: 2 ** 30,
      device: "cpu",
      threads: 2,
      precision,
      kvFormat: "f32",
    });
    logits[precision] = [await logitsOf(engine, tokens, tokens.length), await logitsOf(engine, tokens, 1)];
    await engine.dispose();
  }
  return logits.fast.map((got, index) => difference(got, logits.exact[index]));
}

const worst = [0, 0];
const rows = [];
try {
  for (const directory of directories.flatMap((parent) =>
    fs.readdirSync(parent).map((name) => path.join(parent, name)),
  )) {
    if (!fs.existsSync(path.join(directory, "expected.json"))) continue;
    const differences = await measure(directory).catch((error) =>
      error.code === "INVALID_ARGUMENT" ? error.code : Promise.reject(error),
    );
    if (typeof differences === "string") {
      rows.push([path.basename(directory), differences]);
      continue;
    }
    differences.forEach((value, way) => {
      worst[way] = Math.max(worst[way], value);
    });
    rows.push([path.basename(directory), describe(differences)]);
  }
} finally {
  fs.rmSync(cacheDir, { recursive: true, force: true });
}
console.log(formatTable([...rows, ["worst", describe(worst)]]));
