/** Prompts that are longer than what a stage works on at once: one trip of the tape, the same bits, inside the budget. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoModel, decompose, type LoadOptions } from "../../dist/index.js";
import { makeCheckpoint, outcomeOf, scatteredTokens } from "../helpers/random-models.js";

const MIB = 2 ** 20;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-long-prompts-"));
const store = path.join(directory, "store");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const prompt = scatteredTokens(1400, 499);

const outcome = (load: LoadOptions) =>
  outcomeOf({ path: store, load: { maxSeqLen: 1500, ...load }, prompt, newTokens: 3 });

beforeAll(async () => {
  const checkpoint = path.join(directory, "checkpoint");
  const shape = "--hidden 256 --intermediate 704 --heads 8 --kv-heads 2 --layers 3 --vocab 499 --dtype bf16";
  await makeCheckpoint(checkpoint, shape);
  await decompose({ checkpoint, store });
});

describe.each(["f32", "8bit"] as const)("keys and values in %s", (kvDtype) => {
  it("one pass, whatever the budget, with the same bits", async () => {
    const held = await outcome({ memory: "2GiB", kvDtype });
    expect(held.code, held.message).toBeUndefined();
    expect(held.residency.streamedBytes).toBe(0);
    // A forward, a prompt, two more tokens.
    expect(held.stats.passes).toBe(4);
    const least = held.residency.minimumBytes;
    for (const load of [
      { memory: least + 16 * MIB, hold: false },
      { memory: least + 16 * MIB, hold: false, threads: 1 },
    ]) {
      const other = await outcome({ ...load, kvDtype });
      expect(other.code, other.message).toBeUndefined();
      expect(other.hash).toBe(held.hash);
      expect(other.tokens).toEqual(held.tokens);
      expect(other.stats.passes).toBe(4);
      expect(other.peakBytes).toBeLessThan(load.memory);
    }
    // Pass by pass.
    const discrete = await outcome({ memory: "1GiB", device: "cpu-discrete", kvDtype });
    expect(discrete.hash).toBe(held.hash);
  });
});

it("an abort in the middle of a prompt leaves the model as it was", async () => {
  const model = await AutoModel.fromPretrained(store, { memory: "1GiB", hold: false, maxSeqLen: 1500 });
  try {
    const expected = await model.generate(prompt, { maxNewTokens: 3, ignoreEos: true }).tokens();
    for (const milliseconds of [0, 5, 20, 60]) {
      const controller = new AbortController();
      setTimeout(() => controller.abort(), milliseconds);
      const generation = model.generate([...prompt].reverse(), { maxNewTokens: 1000, signal: controller.signal });
      await generation.tokens().catch(() => {});
      expect(generation.finishReason ?? "aborted").toBe("aborted");
    }
    expect(await model.generate(prompt, { maxNewTokens: 3, ignoreEos: true }).tokens()).toEqual(expected);
  } finally {
    await model.dispose();
  }
});
