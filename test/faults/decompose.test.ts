import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import type { StoredTensor } from "../../dist/checkpoint/manifest.js";
import { readSafetensorsHeader } from "../../dist/checkpoint/safetensors.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { verifyStore } from "../../dist/decompose/verify.js";
import { native } from "../../dist/native/binding.js";
import {
  type CheckpointOptions,
  randomTensor,
  type TensorData,
  type Tensors,
  writeCheckpoint,
} from "../helpers/checkpoint.js";
import { hashFiles, temporaryDirectory } from "../helpers/files.js";

interface Workplace {
  checkpoint: string;
  store: string;
  tensors: Tensors;
}

function workplace(options: CheckpointOptions = {}): Workplace {
  const directory = temporaryDirectory();
  const checkpoint = path.join(directory, "checkpoint");
  return { checkpoint, store: path.join(directory, "store"), tensors: writeCheckpoint(checkpoint, options) };
}

/** Every file of the store that holds stages: its bytes, and the tensors that the manifest has in it. */
async function readStore(directory: string): Promise<{ file: string; bytes: Buffer; tensors: StoredTensor[] }[]> {
  const { manifest } = await openLayerStore(directory);
  return manifest.files
    .filter(({ stages }) => stages.length > 0)
    .map(({ name, stages }) => ({
      file: path.join(directory, name),
      bytes: readFileSync(path.join(directory, name)),
      tensors: stages.flatMap(({ tensors }) => tensors),
    }));
}

function quantize(source: TensorData, { format, rowBytes, block = 0 }: StoredTensor): Buffer {
  const [rows = 0, columns = 0] = source.shape;
  const output = Buffer.alloc(rows * rowBytes);
  const sourceFormat = source.dtype.toLowerCase() as "bf16";
  expect(native().quantize(sourceFormat, source.bytes, rows, columns, format as "8bit", block, output)).toBe(true);
  return output;
}

describe("decompose", () => {
  it.each([
    ["F32", "none", 1],
    ["F16", "8bit", 2],
    ["BF16", "4bit", 3],
    ["BF16", "none", 5],
    ["F32", "4bit", 1],
  ] as const)("stores %s as %s from %i shards", async (dtype, compression, shards) => {
    const { checkpoint, store, tensors } = workplace({ dtype, shards, hidden: 200, vocab: 257 });
    const { manifest, alreadyDone } = await decompose({ checkpoint, store, compression });
    expect(alreadyDone).toBe(false);
    expect(manifest.files.map(({ name }) => name)).toEqual([
      "embed.safetensors",
      "layer-000.safetensors",
      "layer-001.safetensors",
      "head.safetensors",
      "config.json",
      "generation_config.json",
    ]);
    const seen = new Set<string>();
    for (const { file, bytes, tensors: stored } of await readStore(store)) {
      const header = await readSafetensorsHeader(file);
      expect(header.dataOffset % 4096).toBe(0);
      expect(bytes.length % 4096).toBe(0);
      for (const tensor of stored) {
        const source = tensors.get(tensor.name);
        if (!source) throw new Error(`${tensor.name} is not in the checkpoint`);
        const { offset, byteLength, name } = tensor;
        const expected = tensor.block === undefined ? source.bytes : quantize(source, tensor);
        expect(bytes.subarray(offset, offset + byteLength).equals(expected), name).toBe(true);
        expect(offset % (source.shape.length === 2 && byteLength >= 65536 ? 4096 : 64)).toBe(0);
        expect(header.tensors.get(name)).toMatchObject({ offset, byteLength });
        const wanted = name.includes("embed") || name.includes("lm_head") ? "8bit" : compression;
        const isCompressed = compression !== "none" && source.shape.length === 2;
        expect(tensor.format).toBe(isCompressed ? wanted : dtype.toLowerCase());
        seen.add(name);
      }
      const described: object = JSON.parse(header.metadata["layerstream.quantized"] ?? "{}");
      const quantized = stored.filter(({ block }) => block !== undefined);
      expect(described).toEqual(
        Object.fromEntries(quantized.map(({ name, format, shape, block }) => [name, { format, shape, block }])),
      );
    }
    expect([...seen].sort()).toEqual([...tensors.keys()].sort());
    expect(readFileSync(path.join(store, "config.json"))).toEqual(readFileSync(path.join(checkpoint, "config.json")));
    expect(await verifyStore(store)).toMatchObject({ ok: true, problems: [] });
  });

  it("gives embedding and head settings of their own", async () => {
    const { checkpoint, store } = workplace();
    await decompose({ checkpoint, store, compression: "8bit", embeddingCompression: "none", headCompression: "4bit" });
    const { tensors } = await openLayerStore(store);
    expect(tensors.get("model.embed_tokens.weight")?.tensor.format).toBe("bf16");
    expect(tensors.get("lm_head.weight")?.tensor.format).toBe("4bit");
    expect(tensors.get("model.layers.0.mlp.up_proj.weight")?.tensor.format).toBe("8bit");
  });

  it.each<[string, (tensors: Tensors) => void, Record<string, string>]>([
    ["the embedding only", () => undefined, {}],
    [
      "a head as well",
      (t) => t.set("lm_head.weight", randomTensor("BF16", [131, 64])),
      { "lm_head.weight": "model.embed_tokens.weight" },
    ],
    [
      "the head only",
      (t) => {
        t.set("lm_head.weight", t.get("model.embed_tokens.weight") as TensorData);
        t.delete("model.embed_tokens.weight");
      },
      { "lm_head.weight": "model.embed_tokens.weight" },
    ],
  ])("stores a tied matrix once, from a checkpoint with %s", async (_, edit, tied) => {
    const source = workplace({ tied: true }).tensors.get("model.embed_tokens.weight");
    const { checkpoint, store } = workplace({ tied: true, edit });
    const { manifest } = await decompose({ checkpoint, store });
    expect(manifest.tied).toEqual(tied);
    expect(manifest.dropped).toEqual([]);
    expect(existsSync(path.join(store, "embed.safetensors"))).toBe(false);
    const head = (await readStore(store)).at(-1);
    const stored = head?.tensors.find(({ name }) => name === "model.embed_tokens.weight");
    expect(head?.bytes.subarray(stored?.offset, (stored?.offset ?? 0) + (stored?.byteLength ?? 0))).toEqual(
      source?.bytes,
    );
  });

  it("names the tensors that it does not store", async () => {
    const { checkpoint, store } = workplace({
      edit: (tensors) => {
        tensors.set("model.layers.0.self_attn.rotary_emb.inv_freq", randomTensor("F32", [8]));
        tensors.set("extra", { dtype: "I64", shape: [2], bytes: Buffer.alloc(16) });
      },
    });
    const { manifest } = await decompose({ checkpoint, store });
    expect(manifest.dropped).toEqual(["extra", "model.layers.0.self_attn.rotary_emb.inv_freq"]);
  });

  it("does nothing on a finished store, and refuses one of other settings or of another source", async () => {
    const { checkpoint, store } = workplace();
    await decompose({ checkpoint, store });
    const before = hashFiles(store);
    expect((await decompose({ checkpoint, store })).alreadyDone).toBe(true);
    await expect(decompose({ checkpoint, store, compression: "8bit" })).rejects.toMatchObject({
      code: "STORE_OUTDATED",
      message: expect.stringContaining('compression "none", not "8bit"'),
    });
    const other = workplace({ seed: 2 });
    await expect(decompose({ checkpoint: other.checkpoint, store })).rejects.toMatchObject({
      code: "STORE_OUTDATED",
      message: expect.stringContaining("another or an older checkpoint"),
    });
    expect(hashFiles(store)).toEqual(before);
  });

  it.each<[string, string, string, CheckpointOptions]>([
    [
      "a missing tensor",
      "TENSOR_MISSING",
      "model.layers.1.mlp.up_proj.weight",
      { edit: (t) => t.delete("model.layers.1.mlp.up_proj.weight") },
    ],
    ["a shape that the config contradicts", "TENSOR_MISMATCH", "[96, 64]", { config: { intermediate_size: 97 } }],
    [
      "a shape with an axis too many",
      "TENSOR_MISMATCH",
      "[64, 1]",
      { edit: (t) => t.set("model.norm.weight", randomTensor("BF16", [64, 1])) },
    ],
    ["a layer too many in the config", "TENSOR_MISSING", "model.layers.2.", { config: { num_hidden_layers: 3 } }],
    [
      "weights in F64",
      "UNSUPPORTED_MODEL",
      "F64",
      { edit: (t) => t.set("model.norm.weight", { dtype: "F64", shape: [64], bytes: Buffer.alloc(512) }) },
    ],
    [
      "weights in FP8",
      "UNSUPPORTED_MODEL",
      "F8_E4M3",
      { edit: (t) => t.set("lm_head.weight", { dtype: "F8_E4M3", shape: [131, 64], bytes: Buffer.alloc(131 * 64) }) },
    ],
    ["an unknown model type", "UNSUPPORTED_MODEL", "frobnicator", { config: { model_type: "frobnicator" } }],
    ["2^53 layers", "CONFIG_INVALID", "num_hidden_layers", { config: { num_hidden_layers: 2 ** 53 } }],
    ["-1 hidden size", "CONFIG_INVALID", "hidden_size", { config: { hidden_size: -1 } }],
  ])("refuses %s before it writes anything", async (_, code, reason, options) => {
    const { checkpoint, store } = workplace(options);
    const error = await decompose({ checkpoint, store }).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ name: "LayerstreamError", code });
    expect((error as Error).message).toContain(reason);
    expect(existsSync(store)).toBe(false);
  });

  it("names the tensor whose values cannot be quantized, and leaves nothing", async () => {
    const name = "model.layers.1.mlp.up_proj.weight";
    const { checkpoint, store } = workplace({
      edit: (tensors) => tensors.get(name)?.bytes.writeUInt16LE(0x7fc0, 1000),
    });
    const target = path.join(store, "nested", "deep");
    const failing = decompose({ checkpoint, store: target, compression: "4bit", workers: 1 });
    await expect(failing).rejects.toMatchObject({
      code: "QUANTIZATION_FAILED",
      tensor: name,
      message: expect.stringContaining(name),
    });
    expect(readdirSync(target).filter((file) => /tmp|lock|layerstream\.json/.test(file))).toEqual([]);
    await expect(decompose({ checkpoint, store: path.join(store, "none") })).resolves.toMatchObject({
      alreadyDone: false,
    });
  });

  it("leaves a directory alone that is not its own", async () => {
    const { checkpoint, store } = workplace();
    mkdirSync(store);
    writeFileSync(path.join(store, "thesis.txt"), "precious");
    await expect(decompose({ checkpoint, store })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("thesis.txt"),
    });
    expect(readdirSync(store)).toEqual(["thesis.txt"]);
    await expect(decompose({ checkpoint, store: checkpoint })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("refuses an unfinished store of other settings", async () => {
    const { checkpoint, store } = workplace();
    mkdirSync(store);
    writeFileSync(path.join(store, "layerstream.partial.json"), '{"plan":"other","finished":{}}');
    await expect(decompose({ checkpoint, store })).rejects.toMatchObject({ code: "STORE_OUTDATED" });
    writeFileSync(path.join(store, "layerstream.partial.json"), "{");
    await expect(decompose({ checkpoint, store })).rejects.toMatchObject({ code: "STORE_OUTDATED" });
  });

  it("says where it may not write", async () => {
    const { checkpoint } = workplace();
    const file = path.join(temporaryDirectory(), "file");
    writeFileSync(file, "");
    for (const store of [file, path.join(file, "store")]) {
      await expect(decompose({ checkpoint, store })).rejects.toMatchObject({
        code: "NOT_WRITABLE",
        message: expect.stringContaining(file),
      });
    }
  });

  it.skipIf(process.getuid?.() === 0)("says that permission is missing (root has it everywhere)", async () => {
    const { checkpoint } = workplace();
    const directory = temporaryDirectory();
    execFileSync("chmod", ["a-w", directory]);
    const store = path.join(directory, "store");
    await expect(decompose({ checkpoint, store })).rejects.toMatchObject({ code: "NOT_WRITABLE" });
  });

  it("stops on request and goes on later", async () => {
    const { checkpoint, store } = workplace();
    await expect(decompose({ checkpoint, store, signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "ABORTED",
    });
    expect(existsSync(store)).toBe(false);

    const controller = new AbortController();
    const onProgress = () => controller.abort();
    await expect(
      decompose({ checkpoint, store, signal: controller.signal, onProgress, workers: 1 }),
    ).rejects.toMatchObject({
      code: "ABORTED",
    });
    expect(existsSync(path.join(store, "layerstream.json"))).toBe(false);
    await decompose({ checkpoint, store });
    expect(await verifyStore(store)).toMatchObject({ ok: true });
  });

  it("notices a checkpoint that changes meanwhile, and keeps nothing of it", async () => {
    const { checkpoint, store } = workplace();
    const onProgress = () => utimesSync(path.join(checkpoint, "model.safetensors"), 1, 1);
    await expect(decompose({ checkpoint, store, onProgress })).rejects.toMatchObject({ code: "STORE_OUTDATED" });
    expect(existsSync(store)).toBe(false);
  });

  it("ends with the error that onProgress throws", async () => {
    const { checkpoint, store } = workplace();
    const onProgress = () => {
      throw new Error("no more");
    };
    await expect(decompose({ checkpoint, store, onProgress })).rejects.toThrow("no more");
    expect(existsSync(path.join(store, "layerstream.json"))).toBe(false);
  });

  it("reports progress up to the end", async () => {
    const { checkpoint, store } = workplace();
    const reports: number[] = [];
    const { manifest } = await decompose({ checkpoint, store, onProgress: ({ bytesDone }) => reports.push(bytesDone) });
    const total = manifest.files.reduce((sum, { size }) => sum + size, 0);
    expect(reports.at(-1)).toBe(total);
    expect(reports).toEqual([...reports].sort((a, b) => a - b));
  });
});

describe("deleteOriginal", () => {
  it("deletes the shards, and only them, once the store is verified", async () => {
    const { checkpoint, store } = workplace({ shards: 2, files: { "model-9-of-9.safetensors": "not a shard" } });
    const { deleted } = await decompose({ checkpoint, store, deleteOriginal: true });
    expect(deleted.map((file) => path.basename(file))).toEqual([
      "model-1-of-2.safetensors",
      "model-2-of-2.safetensors",
    ]);
    expect(readdirSync(checkpoint).sort()).toEqual([
      "config.json",
      "generation_config.json",
      "model-9-of-9.safetensors",
      "model.safetensors.index.json",
    ]);
    expect(await verifyStore(store)).toMatchObject({ ok: true });
  });

  it("keeps everything if the store turns out to be damaged", async () => {
    const { checkpoint, store } = workplace();
    await decompose({ checkpoint, store });
    const file = path.join(store, "layer-001.safetensors");
    const bytes = readFileSync(file);
    bytes[5000] = (bytes[5000] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    await expect(decompose({ checkpoint, store, deleteOriginal: true })).rejects.toMatchObject({
      code: "STORE_CORRUPT",
    });
    expect(statSync(path.join(checkpoint, "model.safetensors")).size).toBeGreaterThan(0);
  });

  it("keeps a blob of the Hugging Face cache that another revision uses", async () => {
    const model = path.join(temporaryDirectory(), "models--owner--tiny");
    const [one, two] = ["1", "2"].map((revision) => path.join(model, "snapshots", revision)) as [string, string];
    const blob = path.join(model, "blobs", "cafe");
    for (const snapshot of [one, two]) writeCheckpoint(snapshot);
    mkdirSync(path.dirname(blob));
    execFileSync("mv", [path.join(one, "model.safetensors"), blob]);
    rmSync(path.join(two, "model.safetensors"));
    for (const snapshot of [one, two])
      execFileSync("ln", ["-s", "../../blobs/cafe", path.join(snapshot, "model.safetensors")]);
    const stores = temporaryDirectory();
    await decompose({ checkpoint: one, store: path.join(stores, "1"), deleteOriginal: true });
    expect(existsSync(blob)).toBe(true);
    await decompose({ checkpoint: two, store: path.join(stores, "2"), deleteOriginal: true });
    expect(existsSync(blob)).toBe(false);
  });
});
