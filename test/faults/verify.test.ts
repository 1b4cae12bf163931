import { closeSync, openSync, readFileSync, readSync, rmSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { verifyStore } from "../../dist/decompose/verify.js";
import type { Compression } from "../../dist/quant/registry.js";
import { type CheckpointOptions, generator, writeCheckpoint } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

async function makeStore(options: CheckpointOptions = {}, compression: Compression = "8bit"): Promise<string> {
  const directory = temporaryDirectory();
  const [checkpoint, store] = [path.join(directory, "checkpoint"), path.join(directory, "store")];
  writeCheckpoint(checkpoint, options);
  await decompose({ checkpoint, store, compression, embeddingCompression: "none" });
  return store;
}

function flip(file: string, position: number): void {
  const descriptor = openSync(file, "r+");
  const byte = Buffer.alloc(1);
  readSync(descriptor, byte, 0, 1, position);
  byte[0] = (byte[0] ?? 0) ^ 0x10;
  writeSync(descriptor, byte, 0, 1, position);
  closeSync(descriptor);
}

describe("verifyStore", () => {
  it.each(["8bit", "lossless"] as const)(
    "finds a flipped byte at random places of every file, one at a time (%s)",
    async (compression) => {
      const store = await makeStore({}, compression);
      const { manifest } = await openLayerStore(store);
      const random = generator(11);
      for (const { name, size } of manifest.files) {
        const file = path.join(store, name);
        for (const position of [0, size - 1, random() % size, random() % size, random() % size]) {
          flip(file, position);
          const { ok, problems } = await verifyStore(store, { workers: 1 });
          expect(ok).toBe(false);
          expect(problems.map((problem) => problem.file)).toEqual([name]);
          const [{ offset, length } = { offset: 0, length: 0 }] = problems;
          expect(position).toBeGreaterThanOrEqual(offset);
          expect(position).toBeLessThan(offset + length);
          flip(file, position);
        }
      }
      expect(await verifyStore(store)).toEqual({
        ok: true,
        problems: [],
        bytes: manifest.files.reduce((sum, { size }) => sum + size, 0),
      });
    },
  );

  it("names block, tensors, header and padding", async () => {
    const store = await makeStore({ hidden: 512, vocab: 3001, layers: 1 });
    const file = path.join(store, "embed.safetensors");
    const [head, middle, tail] = [100, 2 ** 20 + 5, readFileSync(file).length - 1] as const;
    for (const position of [head, middle, tail]) flip(file, position);
    const { problems } = await verifyStore(store);
    const tensor = "model.embed_tokens.weight";
    expect(problems.map(({ offset, affected }) => ({ offset, affected }))).toEqual([
      { offset: 0, affected: ["header", tensor] },
      { offset: 2 ** 20, affected: [tensor] },
      { offset: 2 ** 21, affected: [tensor, "padding"] },
    ]);
    expect(problems[1]?.message).toContain(`bytes ${2 ** 20} to ${2 ** 21}`);
    expect(problems[1]?.message).toContain(tensor);
  });

  it("finds missing, truncated and extended files", async () => {
    const store = await makeStore();
    rmSync(path.join(store, "layer-000.safetensors"));
    truncateSync(path.join(store, "layer-001.safetensors"), 5000);
    writeFileSync(path.join(store, "config.json"), " ", { flag: "a" });
    const { ok, problems } = await verifyStore(store);
    expect(ok).toBe(false);
    expect(problems.map(({ file, message }) => [file, message.split(" ").slice(0, 2).join(" ")])).toEqual([
      ["config.json", expect.stringMatching(/^has \d+/)],
      ["layer-000.safetensors", "is missing"],
      ["layer-001.safetensors", "has 5000"],
    ]);
  });

  it("finds a damaged manifest", async () => {
    const store = await makeStore();
    flip(path.join(store, "layerstream.json"), 300);
    const { ok, problems } = await verifyStore(store);
    expect(ok).toBe(false);
    expect(problems).toMatchObject([{ file: "layerstream.json" }]);
  });

  it("refuses what is no store, and stops on request", async () => {
    await expect(verifyStore(temporaryDirectory())).rejects.toMatchObject({ code: "STORE_INVALID" });
    const store = await makeStore();
    await expect(verifyStore(store, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ABORTED" });
  });
});
