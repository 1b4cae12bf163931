import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { architectureOf } from "../../dist/models/registry.js";
import { ropeFrequencies } from "../../dist/models/rope.js";

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
    expect(new Set(types)).toEqual(new Set(["default", "linear", "dynamic", "llama3", "yarn"]));
  });

  it("depends on the length of the sequence for the dynamic type only, and only beyond the trained length", () => {
    for (const { config } of rows) {
      const type = architectureOf(config, "config.json").ropes[0]?.scaling.type;
      const trained = config.max_position_embeddings as number;
      const short = frequenciesOf(config, 1);
      expect(frequenciesOf(config, trained)).toEqual(short);
      const beyond = frequenciesOf(config, trained * 4).inverseFrequencies;
      if (type === "dynamic") expect(beyond[5]).toBeLessThan(short.inverseFrequencies[5] ?? 0);
      else expect(beyond).toEqual(short.inverseFrequencies);
    }
  });

  it("reads both spellings of a config alike", () => {
    const sizes = rows.find((row) => row.name === "linear")?.config ?? {};
    const { rope_theta, rope_scaling, ...rest } = sizes;
    const v5 = { ...rest, rope_parameters: { rope_theta, rope_type: "linear", factor: 2.5 } };
    expect(architectureOf(v5, "f").ropes).toEqual(architectureOf({ ...rest, rope_theta, rope_scaling }, "f").ropes);
  });
});
