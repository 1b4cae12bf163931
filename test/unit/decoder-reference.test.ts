import { readdirSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { architectureOf, supportedModelTypes } from "../../dist/models/registry.js";
import { fixtureCases, goldenCases, readConfig, relativeError, sharedCases } from "../helpers/golden.js";
import { ReferenceDecoder } from "../helpers/reference-decoder.js";
import { readTensors } from "../helpers/reference-tensors.js";

/** Plans mean what they should: executed in float64, they give the logits of transformers. */

/** Elements in safetensors files: what the reference reads. */
const cases = [...goldenCases(fixtureCases), ...goldenCases(sharedCases)].filter(({ directory }) => {
  const files = readdirSync(directory);
  const quantized = "quantization_config" in readConfig(directory) || files.includes("quantize_config.json");
  return !quantized && files.some((file) => /^model.*\.safetensors$/.test(file));
});

describe("plans, executed in float64", () => {
  it.each(cases.map((item) => [path.relative(fixtureCases, item.directory), item] as const))(
    "%s gives the logits and greedy tokens of transformers",
    (name, item) => {
      const architecture = architectureOf(readConfig(item.directory), name);
      const decoder = new ReferenceDecoder(architecture, readTensors(item.directory));
      expect(relativeError(Float32Array.from(decoder.forward(item.inputIds)), item.logits)).toBeLessThan(1e-4);

      const sequence = [...item.inputIds];
      for (const token of item.greedyRecomputed) {
        const last = decoder.forward(sequence).subarray(-architecture.vocabSize);
        expect(last.indexOf(Math.max(...last))).toBe(token);
        sequence.push(token);
      }
    },
  );

  it("has fixtures of every model type", () => {
    const covered = new Set(goldenCases(fixtureCases).map(({ directory }) => readConfig(directory).model_type));
    expect(supportedModelTypes.filter((type) => !covered.has(type))).toEqual([]);
  });
});
