/** The embedded model does what it was trained for, with figures that transformers gave for the same weights. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoModel, type Model } from "../../dist/index.js";
import { heldOut } from "../../tools/demo-corpus.mjs";
import { demoModel, exactMatch, perplexity } from "../../tools/evaluate.mjs";

interface Reference {
  perplexity: { value: number };
  exactMatch: Record<string, { right: number; total: number }>;
  greedy: {
    prompt?: string;
    messages?: { role: string; content: string }[];
    ids: number[];
    text: string;
  }[];
}

const reference = JSON.parse(readFileSync(path.join(demoModel, "evaluation.json"), "utf8")) as Reference;
const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-demo-"));
const { texts, tasks } = heldOut(1);
let model: Model;

beforeAll(async () => {
  // Streamed, as the demo does it.
  model = await AutoModel.fromPretrained(demoModel, { cacheDir, hold: false });
});
afterAll(async () => {
  await model.dispose();
  rmSync(cacheDir, { recursive: true, force: true });
});

describe("the demo model", () => {
  it("has the perplexity that transformers measures on the held-out texts", async () => {
    expect((await perplexity(model, texts)) / reference.perplexity.value).toBeCloseTo(1, 4);
  });

  it("solves as many held-out tasks as it does in transformers", async () => {
    expect(await exactMatch(model, tasks)).toEqual(reference.exactMatch);
  });

  it.each(reference.greedy)(
    "continues $prompt$messages as transformers does",
    async ({ prompt, messages, ids, text }) => {
      const given = prompt ?? messages;
      if (given === undefined) throw new Error("the reference has no prompt");
      expect(await model.generate(given, { maxNewTokens: ids.length }).tokens()).toEqual(ids);
      expect(await model.generate(given, { maxNewTokens: ids.length }).text()).toBe(text);
    },
  );

  it("ends before a stop string, and gives out nothing of it", async () => {
    const { prompt, text } = reference.greedy[0] as { prompt: string; text: string };
    const stop = text.slice(40, 46);
    const generation = model.generate(prompt, { maxNewTokens: 100, stop });
    expect(await generation.text()).toBe(text.slice(0, text.indexOf(stop)));
    expect(generation.finishReason).toBe("stop");
  });

  it("stays close to itself when quantized", async () => {
    for (const [compression, worst] of [
      ["8bit", 1.002],
      ["4bit", 1.05],
    ] as const) {
      const quantized = await AutoModel.fromPretrained(demoModel, { cacheDir, compression });
      const ratio = (await perplexity(quantized, texts)) / reference.perplexity.value;
      await quantized.dispose();
      expect(ratio).toBeLessThan(worst);
      expect(ratio).toBeGreaterThan(0.99);
    }
  });
});
