/** Fast precision: close to exact, and the same bits however the work is divided. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { Engine } from "../../dist/engine/engine.js";
import type { EngineOptions } from "../../dist/engine/residency-input.js";
import { decompose } from "../../dist/index.js";
import { architectureOf } from "../../dist/models/registry.js";
import { logitsOf } from "../../tools/measure/logits.mjs";
import { precisionOf } from "../../tools/measure/precision.mjs";
import { fixtureCases, readCase, relativeError } from "../helpers/golden.js";

const directory = mkdtempSync(path.join(tmpdir(), "layerstream-precision-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.each([
  ["mistral_window_bf16", "none"],
  ["gemma_bf16", "none"],
  ["mixtral_bf16", "none"],
  ["deepseek_v2_groups", "none"],
  ["llama_gqa3_sharded", "8bit"],
  ["llama_gqa3_sharded", "4bit"],
  ["gpt_oss_sinks", "4bit"],
] as const)("%s, compression %s", (name, compression) => {
  it("is within 1e-3 of exact, and the same in any division of the work", async () => {
    const { directory: checkpoint, inputIds } = readCase(path.join(fixtureCases, name));
    // Products of 17 tokens and more take another way.
    const prompt = [...inputIds, ...inputIds].slice(0, 33);
    const store = path.join(directory, `${name}-${compression}`);
    await decompose({ checkpoint, store, compression });
    const opened = await openLayerStore(store);
    const architecture = architectureOf(opened.manifest.config, store);
    const base: EngineOptions = { budgetBytes: 2 ** 30, device: "cpu", threads: 2, precision: "fast", kvFormat: "f32" };
    const outcome = async (change: Partial<EngineOptions>, lengths: readonly number[]) => {
      const engine = await Engine.open(opened, architecture, { ...base, ...change });
      try {
        const results: Float32Array[] = [];
        for (const length of lengths) results.push(await logitsOf(engine, prompt, length));
        return results as [Float32Array, Float32Array, Float32Array];
      } finally {
        await engine.dispose();
      }
    };

    const [exact, exactSingles] = await outcome({ precision: "exact" }, [33, 1]);
    expect(exactSingles).toEqual(exact);
    const [whole, singles, few] = await outcome({}, [33, 1, 3]);
    expect(relativeError(whole, exact)).toBeLessThan(1e-3);
    expect(relativeError(singles, exact)).toBeLessThan(1e-3);
    expect(few).toEqual(singles);
    for (const change of [
      { hold: false },
      { threads: 1 },
      { blockTokens: 5 },
      { device: "cpu-discrete", vram: { budgetBytes: 2 ** 30, memoryBytes: 2 ** 34 }, hold: false },
    ]) {
      const [otherWhole, otherSingles] = await outcome(change, [33, 1]);
      expect(otherWhole).toEqual(whole);
      expect(otherSingles).toEqual(singles);
    }
  });
});

const families = readdirSync(fixtureCases).filter((name) => !name.endsWith(".md"));

describe.each([undefined, "8bit", "4bit"] as const)("every family, compression %s", (compression) => {
  it.each(families)("%s: prompts and single tokens are within 1e-3 of exact", async (name) => {
    const { prompt, decode } = await precisionOf(path.join(fixtureCases, name), { cacheDir: directory, compression });
    expect(prompt).toBeLessThan(1e-3);
    expect(decode).toBeLessThan(1e-3);
  });
});
