/**
 * Decoders drawn from the whole vocabulary of parts: what the engine computes is what the plans mean, cached decoding equals
 * one forward pass, and neither the budget nor the device nor the number of threads changes a bit.
 * LAYERSTREAM_DECODERS=200 draws more of them, LAYERSTREAM_FIRST_SEED=17 others.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../dist/checkpoint/checkpoint.js";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { planHash } from "../../dist/decompose/journal.js";
import { layoutLayer } from "../../dist/decompose/layout.js";
import { writeStore } from "../../dist/decompose/store-writer.js";
import { Engine } from "../../dist/engine/engine.js";
import type { EngineOptions } from "../../dist/engine/residency-input.js";
import type { Architecture } from "../../dist/models/architecture.js";
import { assignTensors } from "../../dist/models/assignment.js";
import { compileDecoder } from "../../dist/models/decoder.js";
import { compressionSettings } from "../../dist/quant/registry.js";
import { encodeSafetensors, generator } from "../helpers/checkpoint.js";
import { relativeError } from "../helpers/golden.js";
import { Draw, drawCheckpoint, drawDecoder } from "../helpers/random-decoder.js";
import { ReferenceDecoder } from "../helpers/reference-decoder.js";
import { readTensors } from "../helpers/reference-tensors.js";

const decoders = Number(process.env.LAYERSTREAM_DECODERS ?? 16);
const firstSeed = Number(process.env.LAYERSTREAM_FIRST_SEED ?? 1);
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-decoders-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function writeModel(name: string, tensors: Parameters<typeof encodeSafetensors>[0], architecture: Architecture) {
  const source = path.join(directory, name);
  mkdirSync(source);
  writeFileSync(path.join(source, "config.json"), JSON.stringify({ model_type: name }));
  writeFileSync(path.join(source, "model.safetensors"), encodeSafetensors(tensors));
  const checkpoint = await openCheckpoint(source);
  const assignment = assignTensors(checkpoint, architecture);
  expect(assignment.dropped).toEqual([]);
  const settings = compressionSettings({});
  const layouts = assignment.layers.map((layer) => layoutLayer(layer, settings));
  const { identity } = checkpoint;
  const plan = { identity, settings, hash: planHash(identity, settings, layouts) };
  const journal = { plan: plan.hash, finished: {}, encodings: {} };
  const store = path.join(directory, `${name}-store`);
  mkdirSync(store);
  await writeStore({ directory: store, checkpoint, settings, assignment, layouts, plan }, journal, {});
  return { source, store: await openLayerStore(store) };
}

/** Logits of all tokens, given in parts of these lengths. */
async function logitsOf(engine: Engine, tokens: readonly number[], lengths: readonly number[]): Promise<Float32Array> {
  const sequence = await engine.kvCache.acquire([], tokens.length);
  const { vocabSize } = engine.architecture;
  const logits = new Float32Array(tokens.length * vocabSize);
  let first = 0;
  for (const length of lengths) {
    const part = logits.subarray(first * vocabSize, (first + length) * vocabSize);
    await engine.run(sequence, tokens.slice(first, first + length), part, { allLogits: true, prompt: length > 1 });
    first += length;
  }
  engine.kvCache.release(sequence, false);
  return logits;
}

describe.each(Array.from({ length: decoders }, (_, index) => firstSeed + index))("decoder of seed %i", (seed) => {
  it("computes what its plan means, the same bits in any way", async () => {
    const draw = new Draw(generator(seed));
    const architecture = compileDecoder("random", "random", drawDecoder(draw));
    const { source, store } = await writeModel(`seed-${seed}`, drawCheckpoint(draw, architecture), architecture);
    const tokens = Array.from({ length: draw.integer(9, 30) }, () => draw.integer(0, architecture.vocabSize - 1));
    const lengths: number[] = [];
    for (let left = tokens.length; left > 0; left -= lengths.at(-1) as number) {
      lengths.push(Math.min(left, draw.one([1, 1, 2, 5])));
    }

    const expected = new ReferenceDecoder(architecture, readTensors(source)).forward(tokens);
    const base: EngineOptions = {
      budgetBytes: 2 ** 30,
      device: "cpu",
      threads: 2,
      precision: "exact",
      maxSeqLen: 64,
      kvFormat: "f32",
    };
    let logits: Float32Array | undefined;
    for (const change of [
      {},
      { hold: false },
      { hold: false, blockTokens: 2 },
      { threads: 1 },
      { device: "cpu-discrete", vram: { budgetBytes: 2 ** 30, memoryBytes: 2 ** 34 } },
      { device: "cpu-discrete", vram: { budgetBytes: 2 ** 30, memoryBytes: 2 ** 34 }, hold: false },
    ]) {
      const engine = await Engine.open(store, architecture, { ...base, ...change });
      try {
        const whole = await logitsOf(engine, tokens, [tokens.length]);
        if (logits === undefined) {
          expect(relativeError(whole, Float32Array.from(expected))).toBeLessThan(1e-4);
          logits = whole;
        }
        expect(whole).toEqual(logits);
        expect(await logitsOf(engine, tokens, lengths)).toEqual(logits);
      } finally {
        await engine.dispose();
      }
    }
  });
});
