/** Matrices that LZ4 shrinks: the same weights, and the same logits from the disk, from memory, and beside one another. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { readSafetensorsHeader } from "../../dist/checkpoint/safetensors.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { verifyStore } from "../../dist/decompose/verify.js";
import { AutoModel, type LoadOptions, type Profile } from "../../dist/index.js";
import type { Compression } from "../../dist/quant/registry.js";
import { type TensorData, type Tensors, writeCheckpoint } from "../helpers/checkpoint.js";
import { uncompressBlocks } from "../helpers/lz4-blocks.js";
import { outcomeOf as childOutcome, makeCheckpoint, scatteredTokens } from "../helpers/random-models.js";

const directory = mkdtempSync(path.join(tmpdir(), "layerstream-lz4-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;

function workplace(): { checkpoint: string; store: string } {
  const place = path.join(directory, String(count++));
  return { checkpoint: path.join(place, "checkpoint"), store: path.join(place, "store") };
}

/** Keeps every `kept`-th element of each matrix, as pruning does. */
function prune(tensors: Tensors, kept: number): void {
  for (const { dtype, shape, bytes } of tensors.values()) {
    const elementBytes = dtype === "F32" ? 4 : 2;
    if (shape.length !== 2) continue;
    for (let i = 0; i < bytes.length; i += elementBytes) {
      if ((i / elementBytes) % kept !== 0) bytes.fill(0, i, i + elementBytes);
    }
  }
}

async function pruneShards(checkpoint: string): Promise<void> {
  for (const name of readdirSync(checkpoint).filter((file) => file.endsWith(".safetensors"))) {
    const file = path.join(checkpoint, name);
    const { tensors } = await readSafetensorsHeader(file);
    const content = readFileSync(file);
    const views = [...tensors].map(([tensor, { offset, byteLength, ...kind }]) => {
      return [tensor, { ...kind, bytes: content.subarray(offset, offset + byteLength) }] as const;
    });
    prune(new Map(views), 9);
    writeFileSync(file, content);
  }
}

/** gate and up take two blocks, down and the head one, each of them more than one page; the rest is too small. */
const shape = { dtype: "F32", hidden: 256, intermediate: 1100, vocab: 700 } as const;

async function storedTensors(store: string) {
  const { manifest } = await openLayerStore(store);
  return manifest.files.flatMap(({ name, stages }) =>
    stages.flatMap(({ tensors }) => tensors.map((tensor) => ({ file: name, tensor }))),
  );
}

async function outcomeOf(source: string, compression: Compression, load: object) {
  const model = await AutoModel.fromPretrained(source, { cacheDir: directory, compression, ...load });
  try {
    const prompt = Array.from({ length: 9 }, (_, i) => (i * 37) % 190);
    const { logits } = await model.forward(prompt);
    const tokens = await model.generate(prompt, { maxNewTokens: 5, ignoreEos: true }).tokens();
    const { passes, bytesStreamed } = model.stats();
    return {
      logits,
      tokens,
      store: model.store,
      passes,
      bytesStreamed,
      streamedBytes: model.residency().streamedBytes,
    };
  } finally {
    await model.dispose();
  }
}

const loads = [
  { precision: "exact" },
  { precision: "exact", hold: false },
  { precision: "exact", device: "cpu-discrete" },
  { precision: "exact", device: "cpu-discrete", hold: false },
] as const;

describe("matrices that LZ4 shrinks", () => {
  it("are stored in blocks of whole rows, and come back as they were", async () => {
    const { checkpoint, store } = workplace();
    const tensors = writeCheckpoint(checkpoint, { ...shape, edit: (all) => prune(all, 9) });
    await decompose({ checkpoint, store, compression: "lossless" });
    const compressed = (await storedTensors(store)).filter(({ tensor }) => tensor.lz4);
    const names = compressed.map(({ tensor }) => tensor.name);
    expect(names).toContain("model.layers.0.mlp.up_proj.weight");
    expect(names).toContain("lm_head.weight");
    expect(names).not.toContain("model.embed_tokens.weight");
    for (const { file, tensor } of compressed) {
      const { bytes } = tensors.get(tensor.name) as TensorData;
      const stored = readFileSync(path.join(store, file)).subarray(tensor.offset, tensor.offset + tensor.byteLength);
      expect(stored.length, tensor.name).toBeLessThan(bytes.length / 2);
      expect(uncompressBlocks(stored, tensor).equals(bytes), tensor.name).toBe(true);
      const header = await readSafetensorsHeader(path.join(store, file));
      expect(header.tensors.get(`${tensor.name}.lz4_blocks`)).toMatchObject({ dtype: "U8", shape: [stored.length] });
    }
    expect(await verifyStore(store)).toMatchObject({ ok: true });
  });

  it("give the same bits as the plain ones", async () => {
    const { checkpoint } = workplace();
    writeCheckpoint(checkpoint, { ...shape, edit: (all) => prune(all, 9) });
    for (const load of loads) {
      const plain = await outcomeOf(checkpoint, "none", load);
      const lossless = await outcomeOf(checkpoint, "lossless", load);
      expect((await storedTensors(lossless.store)).filter(({ tensor }) => tensor.lz4).length).toBeGreaterThan(5);
      expect(lossless.logits).toEqual(plain.logits);
      expect(lossless.tokens).toEqual(plain.tokens);
      expect(lossless.bytesStreamed).toBeGreaterThanOrEqual(lossless.passes * lossless.streamedBytes);
      if ("hold" in load) expect(lossless.streamedBytes).toBeLessThan(plain.streamedBytes / 2);
    }
  });

  it("serve a prompt of several blocks in one pass, held, streamed and in between", async () => {
    const { checkpoint, store } = workplace();
    const config = { max_position_embeddings: 2048 };
    writeCheckpoint(checkpoint, { ...shape, layers: 6, config, edit: (all) => prune(all, 9) });
    await decompose({ checkpoint, store, compression: "lossless" });
    await decompose({ checkpoint, store: `${store}-plain`, compression: "none" });
    const request = { prompt: scatteredTokens(1100, shape.vocab), newTokens: 3 };
    const outcome = (at: string, load: LoadOptions) => childOutcome({ ...request, path: at, load });
    const plain = await outcome(`${store}-plain`, { memory: "2GiB" });
    // A forward, a prompt, two more tokens.
    expect(plain.stats.passes).toBe(4);
    const part = (await outcome(store, { memory: "2GiB" })).residency.minimumBytes + 4 * 2 ** 20;
    for (const load of [
      { memory: "2GiB" },
      { memory: "2GiB", hold: false },
      { memory: part },
      { memory: part, threads: 1 },
    ]) {
      const lossless = await outcome(store, load);
      expect(lossless.code, lossless.message).toBeUndefined();
      expect(lossless.stats.passes).toBe(4);
      expect(lossless.hash).toBe(plain.hash);
      expect(lossless.tokens).toEqual(plain.tokens);
      const { heldBytes, streamedBytes } = lossless.residency;
      if (load.memory === part) expect([heldBytes > 0, streamedBytes > 0]).toEqual([true, true]);
    }
  });

  it("are decoded once where they are held, and by every pass where they are streamed", async () => {
    const { checkpoint, store } = workplace();
    writeCheckpoint(checkpoint, { ...shape, edit: (all) => prune(all, 9) });
    await decompose({ checkpoint, store, compression: "lossless" });
    /** In the pass of a prompt, and in three passes of a token: reads run ahead of the passes that they are for. */
    const decodedBytes = async (hold: boolean) => {
      const model = await AutoModel.fromPretrained(store, { hold, profilingMode: true });
      try {
        await model.generate([1, 2, 3], { maxNewTokens: 4, ignoreEos: true }).tokens();
        const { prompt, decode } = model.profile() as Profile;
        return [prompt, decode].map(({ stages }) => stages.reduce((sum, stage) => sum + stage.decodedBytes, 0));
      } finally {
        await model.dispose();
      }
    };
    const [once, never] = await decodedBytes(true);
    expect(once).toBeGreaterThan(0);
    expect(never).toBe(0);
    const [first, later] = (await decodedBytes(false)) as [number, number];
    expect(first + later).toBeGreaterThanOrEqual(4 * (once as number));
  });

  it("may be experts", async () => {
    const { checkpoint } = workplace();
    const options =
      "--family mixtral --hidden 264 --heads 6 --kv-heads 2 --layers 2 --vocab 199 --dtype f16 --intermediate 300 --experts 4";
    await makeCheckpoint(checkpoint, options);
    await pruneShards(checkpoint);
    for (const load of loads) {
      const plain = await outcomeOf(checkpoint, "none", load);
      const lossless = await outcomeOf(checkpoint, "lossless", load);
      const compressed = (await storedTensors(lossless.store)).filter(({ tensor }) => tensor.lz4);
      expect(compressed.some(({ tensor }) => tensor.name.includes("experts"))).toBe(true);
      expect(lossless.logits).toEqual(plain.logits);
      expect(lossless.tokens).toEqual(plain.tokens);
    }
  });

  it("are left alone where they would not shrink by a tenth", async () => {
    const { checkpoint, store } = workplace();
    const wild = "model.layers.1.mlp.up_proj.weight";
    writeCheckpoint(checkpoint, {
      ...shape,
      dtype: "F16",
      edit: (all) => {
        const { bytes } = all.get(wild) as TensorData;
        const kept = Buffer.from(bytes);
        prune(all, 9);
        kept.copy(bytes);
      },
    });
    await decompose({ checkpoint, store, compression: "lossless" });
    const stored = new Map((await storedTensors(store)).map(({ tensor }) => [tensor.name, tensor]));
    expect(stored.get(wild)?.lz4).toBeUndefined();
    expect(stored.get("model.layers.1.mlp.gate_proj.weight")?.lz4).toBeDefined();
  });

  it("are refused where they are damaged, and verify finds them", async () => {
    const { checkpoint, store } = workplace();
    writeCheckpoint(checkpoint, { ...shape, edit: (all) => prune(all, 9) });
    await decompose({ checkpoint, store, compression: "lossless" });
    const [{ file, tensor }] = (await storedTensors(store)).filter(({ tensor }) => tensor.lz4) as [
      Awaited<ReturnType<typeof storedTensors>>[number],
    ];
    const bytes = readFileSync(path.join(store, file));
    bytes.fill(255, tensor.offset, tensor.offset + 64);
    writeFileSync(path.join(store, file), bytes);
    expect((await verifyStore(store)).problems[0]?.affected).toContain(tensor.name);
    for (const load of loads) {
      await expect(outcomeOf(store, "lossless", load)).rejects.toMatchObject({
        code: "STORE_CORRUPT",
        message: expect.stringContaining("no LZ4 block"),
      });
    }
  });
});
