import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { architectureOf } from "../../dist/models/registry.js";
import { dependsOnLength, ropeFrequencies } from "../../dist/models/rope.js";

interface Row {
  name: string;
  config: Record<string, unknown>;
  sequence_length: number;
  attention_factor: number;
  inverse_frequencies: number[];
}

/** Written by test/fixtures/rope/make.py from transformers. */
const rows = JSON.parse(
  readFileSync(path.resolve(import.meta.dirname, "../fixtures/rope/frequencies.json"), "utf8"),
) as Row[];

function frequenciesOf(config: Record<string, unknown>, sequenceLength: number) {
  const [rope] = architectureOf(config, "config.json").ropes;
  if (rope === undefined) throw new Error("no rope");
  return ropeFrequencies(rope, sequenceLength);
}

describe("rope frequencies", () => {
  it.each(rows)("$name: those of transformers to three units in the last place", (row) => {
    const { inverseFrequencies, attentionFactor } = frequenciesOf(row.config, row.sequence_length);
    expect(attentionFactor).toBe(row.attention_factor);
    expect(inverseFrequencies.length).toBe(row.inverse_frequencies.length);
    row.inverse_frequencies.forEach((expected, i) => {
      const difference = Math.abs((inverseFrequencies[i] ?? Number.NaN) - expected);
      expect(difference / expected, `pair ${i}`).toBeLessThanOrEqual(3 * 2 ** -24);
    });
  });

  it("covers every supported type", () => {
    const types = rows.map(({ config }) => architectureOf(config, "config.json").ropes[0]?.scaling.type);
    expect(new Set(types)).toEqual(new Set(["default", "linear", "dynamic", "llama3", "yarn", "longrope"]));
  });

  it("depends on the length of the sequence for two types only, and only beyond the trained length", () => {
    for (const { config, name } of rows) {
      const [rope] = architectureOf(config, "config.json").ropes;
      if (rope === undefined) throw new Error(`${name}: no rope`);
      const { type } = rope.scaling;
      expect(dependsOnLength(rope)).toBe(type === "dynamic" || type === "longrope");
      const key = type === "longrope" ? "original_max_position_embeddings" : "max_position_embeddings";
      const trained = config[key] as number;
      const short = frequenciesOf(config, 1);
      expect(frequenciesOf(config, trained)).toEqual(short);
      const beyond = frequenciesOf(config, trained * 4).inverseFrequencies;
      if (dependsOnLength(rope)) expect(beyond[5]).toBeLessThan(short.inverseFrequencies[5] ?? 0);
      else expect(beyond).toEqual(short.inverseFrequencies);
    }
  });

  it("reads both spellings of a config alike", () => {
    const sizes = rows.find((row) => row.name === "linear")?.config ?? {};
    const { rope_theta, rope_scaling, ...rest } = sizes;
    const v5 = { ...rest, rope_parameters: { rope_theta, rope_type: "linear", factor: 2.5 } };
    expect(architectureOf(v5, "f").ropes).toEqual(architectureOf({ ...rest, rope_theta, rope_scaling }, "f").ropes);
  });

  it("of QWen v1 grows in steps, whenever the length doubles", () => {
    const spec = { rotaryDim: 12, theta: 10000, scaling: { type: "qwenDynamic", trainedLength: 100 } } as const;
    const plain = { rotaryDim: 12, theta: 10000, scaling: { type: "default" } } as const;
    const base = (alpha: number) => ropeFrequencies({ ...plain, theta: 10000 * alpha ** (12 / 10) }, 1);
    for (const [length, alpha] of [
      [1, 1],
      [100, 1],
      [101, 3],
      [200, 3],
      [201, 7],
      [400, 7],
      [401, 15],
    ] as const) {
      expect(ropeFrequencies(spec, length), `${length}`).toEqual(base(alpha));
    }
    expect(dependsOnLength(spec)).toBe(true);
  });
});
