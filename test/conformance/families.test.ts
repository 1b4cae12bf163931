/** Logits and greedy tokens of every supported reference case, in all the ways that weights can reach the compute. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoModel } from "../../dist/index.js";
import { architectureOf, supportedModelTypes } from "../../dist/models/registry.js";
import { dependsOnLength } from "../../dist/models/rope.js";
import { native } from "../../dist/native/binding.js";
import {
  fixtureCases,
  goldenCases,
  quantizedFixtures,
  readConfig,
  relativeError,
  sharedCases,
} from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-families-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

const cases = [fixtureCases, quantizedFixtures, sharedCases].flatMap(goldenCases);

it("there are cases of every model type", () => {
  const covered = new Set(cases.map(({ directory }) => readConfig(directory).model_type));
  expect(supportedModelTypes.filter((type) => !covered.has(type))).toEqual([]);
});

const opencl = native()
  .devices()
  .find(({ name }) => name === "opencl");

/**
 * Held, from the checkpoint as a user has it; then from the decomposed store, all streamed; then on other devices. All ways
 * with the same kernels give the same bits.
 */
const ways = [
  { name: "checkpoint, held", fromStore: false, options: {} },
  { name: "store, streamed", fromStore: true, options: { hold: false } },
  {
    name: "store, on a device with memory of its own",
    fromStore: true,
    options: { hold: false, device: "cpu-discrete" },
  },
  { name: "store, on OpenCL", fromStore: true, options: { device: "opencl" } },
  { name: "store, streamed through OpenCL", fromStore: true, options: { hold: false, device: "opencl" } },
];

describe.each(cases.map((item) => [path.relative(process.cwd(), item.directory), item] as const))("%s", (_, item) => {
  let store: string | undefined;
  const bitsOf = new Map<string, Float32Array>();

  it.for(ways)("$name", async ({ fromStore, options }, { skip }) => {
    const device = options.device === "opencl" ? "opencl" : "cpu";
    if (device === "opencl" && opencl?.reason !== undefined) skip(opencl.reason);
    const source = fromStore ? store : item.directory;
    if (source === undefined) throw new Error("the checkpoint did not load");
    const model = await AutoModel.fromPretrained(source, { cacheDir, ...options });
    try {
      store = model.store;
      const { logits, vocabSize } = await model.forward(item.inputIds);
      expect(relativeError(logits, item.logits)).toBeLessThan(1e-3);
      const bits = bitsOf.get(device) ?? logits;
      bitsOf.set(device, bits);
      expect(logits).toEqual(bits);

      const generated = await model
        .generate(item.inputIds, { maxNewTokens: item.greedy.length, ignoreEos: true })
        .tokens();
      expect(generated).toEqual(item.greedy);

      // Nothing is left of the sequence before. Products of a few tokens take another way than those of many.
      const few = await model.forward(item.inputIds.slice(0, 3));
      if (!architectureOf(readConfig(item.directory), item.name).ropes.some(dependsOnLength)) {
        expect(relativeError(few.logits, item.logits.subarray(0, 3 * vocabSize))).toBeLessThan(1e-3);
      }
      const again = await model.forward(item.inputIds);
      expect(again.logits).toEqual(bits);
    } finally {
      await model.dispose();
    }
  });
});
