/** Every reference case on the CUDA device: its kernels, compiled for the host, on a driver without a GPU. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoModel } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";
import { useEmulatedCuda } from "../helpers/emulated-cuda.js";
import { fixtureCases, goldenCases, quantizedFixtures, relativeError, sharedCases } from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-cuda-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

const missing =
  (await useEmulatedCuda()) ??
  native()
    .devices()
    .find(({ name }) => name === "cuda")?.reason;
const cases = [fixtureCases, quantizedFixtures, sharedCases].flatMap(goldenCases);

describe.each(cases.map((item) => [path.relative(process.cwd(), item.directory), item] as const))("%s", (_, item) => {
  it("streamed through CUDA", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const model = await AutoModel.fromPretrained(item.directory, { cacheDir, hold: false, device: "cuda" });
    try {
      const { logits } = await model.forward(item.inputIds);
      expect(relativeError(logits, item.logits)).toBeLessThan(1e-3);
      const maxNewTokens = item.greedy.length;
      expect(await model.generate(item.inputIds, { maxNewTokens, ignoreEos: true }).tokens()).toEqual(item.greedy);
    } finally {
      await model.dispose();
    }
  });
});
