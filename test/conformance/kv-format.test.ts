/** Keys and values in fewer bits: how far logits move, and that nothing else about them changes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoModel } from "../../dist/index.js";
import { fixtureCases, goldenCases, relativeError } from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-kv-format-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

/** Odd heads, sliding windows, caps, and latent attention, whose values are part of the keys. */
const names = ["llama_gqa3_sharded", "gemma2_caps", "mistral_window_bf16", "deepseek_v3_halves"];
const cases = goldenCases(fixtureCases).filter(({ name }) => names.includes(name));

/** A rounded element is off by at most 2^-9 of itself (bf16), or 1 / 254 of the largest of its vector (8bit). */
const tolerances = { bf16: 0.02, "8bit": 0.04 } as const;

it("there are cases", () => expect(cases.map(({ name }) => name).sort()).toEqual([...names].sort()));

describe.each(cases.map((item) => [item.name, item] as const))("%s", (_, item) => {
  it.each(["bf16", "8bit"] as const)("keys and values in %s", async (kvDtype) => {
    let bits: Float32Array | undefined;
    for (const options of [{}, { hold: false, threads: 1 }, { device: "cpu-discrete" }]) {
      const model = await AutoModel.fromPretrained(item.directory, {
        cacheDir,
        kvDtype,
        precision: "exact",
        maxSeqLen: 64,
        ...options,
      });
      try {
        const { logits, vocabSize } = await model.forward(item.inputIds);
        expect(model.stats().kvDtype).toBe(kvDtype);
        const error = relativeError(logits, item.logits);
        expect(error).toBeLessThan(tolerances[kvDtype]);
        expect(error).toBeGreaterThan(1e-5);
        bits ??= logits;
        expect(logits).toEqual(bits);
        const part = await model.forward(item.inputIds.slice(0, 5));
        expect(part.logits).toEqual(logits.subarray(0, 5 * vocabSize));
      } finally {
        await model.dispose();
      }
    }
  });
});

it("what is not a format is refused, naming those that are", async () => {
  const directory = cases[0]?.directory as string;
  const kvDtype = "4bit" as "8bit";
  await expect(AutoModel.fromPretrained(directory, { cacheDir, kvDtype })).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
    remedy: "Use f32, bf16, 8bit.",
  });
});
