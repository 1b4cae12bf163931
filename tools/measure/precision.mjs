import fs from "node:fs";
import path from "node:path";
import { Engine } from "../../dist/engine/engine.js";
import { AutoModel } from "../../dist/index.js";
import { architectureOf } from "../../dist/models/registry.js";
import { logitsOf } from "./logits.mjs";

/** The largest difference over the largest expected magnitude. */
function difference(got, expected) {
  let largest = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    error = Math.max(error, Math.abs(got[i] - expected[i]));
  }
  return error / largest;
}

/**
 * What `precision: "fast"` does to the logits of a reference case (a checkpoint with expected.json): the largest difference
 * from `precision: "exact"` over the largest logit, of the case's tokens twice over, as one prompt and one token after the
 * other. Twice: products of a few tokens are done as those of one.
 *
 * @param {string} directory
 * @param {{ cacheDir: string, compression?: "8bit" | "4bit" }} options
 * @returns {Promise<{ prompt: number, decode: number }>}
 */
export async function precisionOf(directory, { cacheDir, compression }) {
  const model = await AutoModel.fromPretrained(directory, { cacheDir, compression, requantize: true });
  const { store } = model.engine;
  await model.dispose();
  const architecture = architectureOf(store.manifest.config, directory);
  const { input_ids } = JSON.parse(fs.readFileSync(path.join(directory, "expected.json"), "utf8"));
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
  const [prompt, decode] = logits.fast.map((got, way) => difference(got, logits.exact[way]));
  return { prompt, decode };
}
