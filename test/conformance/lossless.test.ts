/** `compression: "lossless"`: fewer bytes, the same weights bit for bit, and so the same logits bit for bit. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { AutoModel } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";
import type { Compression } from "../../dist/quant/registry.js";
import { type TensorData, type Tensors, writeCheckpoint } from "../helpers/checkpoint.js";
import { fixtureCases, goldenCases, sharedCases } from "../helpers/golden.js";
import { uncompressBlocks } from "../helpers/lz4-blocks.js";
import { makeCheckpoint } from "../helpers/random-models.js";
import { normalNumbers } from "../helpers/weight-format.js";

const directory = mkdtempSync(path.join(tmpdir(), "layerstream-lossless-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
let count = 0;

function workplace(): { checkpoint: string; store: string } {
  const place = path.join(directory, String(count++));
  return { checkpoint: path.join(place, "checkpoint"), store: path.join(place, "store") };
}

/** Matrices of normally distributed weights, and what `edit` makes of them. */
function writeNormalCheckpoint(checkpoint: string, dtype: "BF16" | "F32" | "F16", edit?: (tensors: Tensors) => void) {
  return writeCheckpoint(checkpoint, {
    dtype,
    hidden: 128,
    intermediate: 1100,
    edit: (tensors) => {
      let seed = 1;
      for (const tensor of tensors.values()) if (tensor.shape.length === 2) fillNormal(tensor, seed++);
      edit?.(tensors);
    },
  });
}

function fillNormal({ dtype, bytes, shape }: TensorData, seed: number): void {
  const numbers = Float32Array.from(normalNumbers(shape[0] as number, 0.02, seed));
  const bits = new Uint32Array(numbers.buffer);
  const elementBytes = dtype === "F32" ? 4 : 2;
  const rowBytes = (shape[1] as number) * elementBytes;
  bytes.forEach((_, i) => {
    if (i % elementBytes !== 0) return;
    const row = Math.floor(i / rowBytes);
    const sample = (bits[(row * 31 + i / elementBytes) % bits.length] as number) >>> 16;
    bytes.writeUInt16LE(dtype === "F16" ? sample & 0xbfff : sample, i + elementBytes - 2);
  });
}

/** The elements of a stored matrix as the checkpoint has them. */
async function restored(store: string, name: string): Promise<Buffer> {
  const { tensors, filePath } = await openLayerStore(store);
  const location = tensors.get(name);
  if (!location) throw new Error(`${name} is not stored`);
  const { format, shape, offset, byteLength, block = 0, lz4 } = location.tensor;
  const stored = readFileSync(filePath(location.file.name)).subarray(offset, offset + byteLength);
  const bytes = lz4 ? uncompressBlocks(stored, location.tensor) : stored;
  const [rows = 0, columns = 0] = shape;
  const values = new Float32Array(rows * columns);
  native().dequantize(format, bytes, rows, columns, block, values);
  return Buffer.from(values.buffer);
}

const matrices = (tensors: Tensors) => [...tensors].filter(([, { shape }]) => shape.length === 2);

describe("a lossless store", () => {
  it("holds bfloat16 exactly, in less room, embedding and head too", async () => {
    const { checkpoint, store } = workplace();
    const tensors = writeNormalCheckpoint(checkpoint, "BF16");
    await decompose({ checkpoint, store, compression: "lossless" });
    const stored = await openLayerStore(store);
    for (const [name, { bytes }] of matrices(tensors)) {
      const tensor = stored.tensors.get(name)?.tensor;
      expect(tensor?.format, name).toBe("bf16_window");
      expect(tensor?.byteLength, name).toBeLessThan(0.8 * bytes.length);
      const floats = await restored(store, name);
      for (let i = 0; i < bytes.length / 2; i++) {
        if (floats.readUInt32LE(4 * i) !== bytes.readUInt16LE(2 * i) * 65536)
          throw new Error(`${name}: weight ${i} changed`);
      }
    }
  });

  it("takes float32 for what it is: bfloat16 where every weight is one", async () => {
    const { checkpoint, store } = workplace();
    const odd = "model.layers.0.self_attn.q_proj.weight";
    const tensors = writeNormalCheckpoint(checkpoint, "F32", (all) => {
      for (const [, { bytes }] of matrices(all)) for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt16LE(0, i);
      const { bytes } = all.get(odd) as TensorData;
      bytes[bytes.length - 4] = 1;
    });
    await decompose({ checkpoint, store, compression: "lossless" });
    const stored = await openLayerStore(store);
    for (const [name, { bytes }] of matrices(tensors)) {
      expect(stored.tensors.get(name)?.tensor.format, name).toBe(name === odd ? "f32" : "bf16_window");
      expect((await restored(store, name)).equals(bytes), name).toBe(true);
    }
  });

  it("leaves alone what would not shrink", async () => {
    const { checkpoint, store } = workplace();
    const wild = "model.layers.1.mlp.up_proj.weight";
    const tensors = writeNormalCheckpoint(checkpoint, "BF16", (all) => {
      const { bytes } = all.get(wild) as TensorData;
      for (let i = 0; i < bytes.length; i += 2) bytes.writeUInt16LE((i * 40_503) & 0xffff, i);
    });
    await decompose({ checkpoint, store, compression: "lossless", headCompression: "none" });
    const { tensors: stored, filePath } = await openLayerStore(store);
    expect(stored.get("lm_head.weight")?.tensor.format).toBe("bf16");
    const location = stored.get(wild);
    expect(location?.tensor.format).toBe("bf16");
    const { offset, byteLength } = location?.tensor ?? { offset: 0, byteLength: 0 };
    const bytes = readFileSync(filePath(location?.file.name ?? "")).subarray(offset, offset + byteLength);
    expect(bytes.equals((tensors.get(wild) as TensorData).bytes)).toBe(true);
  });

  it("is made once: a finished one is neither surveyed nor written again", async () => {
    const { checkpoint, store } = workplace();
    writeNormalCheckpoint(checkpoint, "BF16");
    const options = { checkpoint, store, compression: "lossless" } as const;
    const progress: number[] = [];
    await decompose({ ...options, onProgress: ({ bytesDone, bytesTotal }) => progress.push(bytesDone / bytesTotal) });
    expect(progress.at(-1)).toBe(1);
    const calls: unknown[] = [];
    const again = await decompose({ ...options, onProgress: (value) => calls.push(value) });
    expect(again.alreadyDone).toBe(true);
    expect(calls).toEqual([]);
    expect(readdirSync(store)).not.toContain("layerstream.partial.json");
  });
});

async function outcomeOf(source: string, compression: Compression, prompt: number[], newTokens: number, load: object) {
  const model = await AutoModel.fromPretrained(source, { cacheDir: directory, compression, ...load });
  try {
    const { files } = (await openLayerStore(model.store)).manifest;
    const tensors = files.flatMap(({ stages }) => stages.flatMap((stage) => stage.tensors));
    const encoded = tensors.filter(({ format }) => format === "bf16_window").length;
    const { logits } = await model.forward(prompt);
    const tokens = await model.generate(prompt, { maxNewTokens: newTokens, ignoreEos: true }).tokens();
    return { logits, tokens, encoded };
  } finally {
    await model.dispose();
  }
}

const exact = { precision: "exact", hold: false } as const;
const fast = { precision: "fast", hold: false } as const;
const discrete = { precision: "exact", device: "cpu-discrete" } as const;

describe.each([
  ["llama", "--intermediate 700", [exact, fast, discrete]],
  ["qwen2", "--intermediate 700 --tied", [fast]],
  ["mixtral", "--intermediate 300 --experts 4", [exact, fast]],
] as const)("a model of family %s", (family, rest, loads) => {
  const { checkpoint } = workplace();

  it.each(loads)("computes the same bits as from the plain store: %o", async (load) => {
    if (!existsSync(checkpoint)) {
      const shape = `--family ${family} --hidden 264 --heads 6 --kv-heads 2 --layers 2 --vocab 199 --dtype bf16 ${rest}`;
      await makeCheckpoint(checkpoint, shape);
    }
    const prompt = Array.from({ length: 21 }, (_, i) => (i * 37) % 199);
    const plain = await outcomeOf(checkpoint, "none", prompt, 6, load);
    const lossless = await outcomeOf(checkpoint, "lossless", prompt, 6, load);
    expect(plain.encoded).toBe(0);
    expect(lossless.encoded).toBeGreaterThan(10);
    expect(lossless.logits).toEqual(plain.logits);
    expect(lossless.tokens).toEqual(plain.tokens);
  });
});

/** Reference cases in bfloat16; most of their matrices are too narrow to shrink. */
const cases = [fixtureCases, sharedCases].flatMap(goldenCases).filter(({ name }) => name.includes("bf16"));

it.each(cases.map((item) => [path.relative(process.cwd(), item.directory), item] as const))("%s", async (_, item) => {
  const plain = await outcomeOf(item.directory, "none", item.inputIds, item.greedy.length, { precision: "exact" });
  const lossless = await outcomeOf(item.directory, "lossless", item.inputIds, item.greedy.length, {
    precision: "exact",
  });
  expect(lossless.logits).toEqual(plain.logits);
  expect(lossless.tokens).toEqual(item.greedy);
});
