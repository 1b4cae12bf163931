import { readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { decompose } from "../../dist/decompose/decompose.js";
import { type CheckpointOptions, type TensorData, type Tensors, writeCheckpoint } from "../helpers/checkpoint.js";
import { hashFiles, temporaryDirectory } from "../helpers/files.js";
import { archive, legacyFile, stateDict, tensor } from "../helpers/pytorch.js";

const TYPES: Record<string, string> = { F32: "FloatStorage", F16: "HalfStorage", BF16: "BFloat16Storage" };

/** One storage for all tensors, each third of them transposed, as views of it. */
function pickleOf(tensors: Tensors): { pickle: Buffer; storage: Buffer; length: number } {
  const pieces: Buffer[] = [];
  const values: Record<string, Buffer> = {};
  const total = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  let offset = 0;
  for (const [index, [name, { dtype, shape, bytes }]] of [...tensors].entries()) {
    const [rows = 1, columns = 1] = shape;
    const isTransposed = shape.length === 2 && index % 3 === 0;
    const strides = shape.length === 1 ? [1] : isTransposed ? [1, rows] : [columns, 1];
    const place = { key: "7", length: total, offset, shape, strides, type: TYPES[dtype] as string };
    values[name] = tensor(place);
    pieces.push(isTransposed ? transpose(bytes, rows, columns) : bytes);
    offset += rows * columns;
  }
  return { pickle: stateDict(values), storage: Buffer.concat(pieces), length: total };
}

function transpose(bytes: Buffer, rows: number, columns: number): Buffer {
  const size = bytes.length / rows / columns;
  const result = Buffer.alloc(bytes.length);
  for (let i = 0; i < rows * columns; i++) {
    const target = ((i % columns) * rows + Math.floor(i / columns)) * size;
    bytes.copy(result, target, i * size, (i + 1) * size);
  }
  return result;
}

/** The same model as safetensors and as .bin. */
function workplace(format: "zip" | "legacy" | "sharded", options: CheckpointOptions) {
  const directory = temporaryDirectory();
  const [plain, pickled] = [path.join(directory, "plain"), path.join(directory, "pickled")];
  const tensors = writeCheckpoint(plain, options);
  writeCheckpoint(pickled, options);
  for (const name of readdirSync(pickled)) {
    if (name.includes("safetensors")) rmSync(path.join(pickled, name));
  }
  if (format === "sharded") writeShards(pickled, tensors);
  else {
    const { pickle, storage, length } = pickleOf(tensors);
    const bytes = format === "zip" ? archive(pickle, { 7: storage }) : legacyFile(pickle, [["7", length, storage]]);
    writeFileSync(path.join(pickled, "pytorch_model.bin"), bytes);
  }
  return { plain, pickled, stores: path.join(directory, "stores") };
}

function writeShards(directory: string, tensors: Tensors): void {
  const entries: [string, TensorData][] = [...tensors];
  const weightMap: Record<string, string> = {};
  for (const [shard, part] of [entries.slice(0, 5), entries.slice(5)].entries()) {
    const name = `pytorch_model-${shard + 1}.bin`;
    for (const [tensorName] of part) weightMap[tensorName] = name;
    const { pickle, storage } = pickleOf(new Map(part));
    writeFileSync(path.join(directory, name), archive(pickle, { 7: storage }));
  }
  writeFileSync(path.join(directory, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map: weightMap }));
}

function layerFiles(store: string): Record<string, string> {
  return Object.fromEntries(Object.entries(hashFiles(store)).filter(([name]) => name.endsWith(".safetensors")));
}

describe("decompose of .bin files", () => {
  it.each([
    ["zip", "BF16", "none"],
    ["zip", "F32", "4bit"],
    ["legacy", "F16", "8bit"],
    ["legacy", "F32", "none"],
    ["sharded", "BF16", "8bit"],
  ] as const)(
    "%s, %s: layer files are those of the same model as safetensors (%s)",
    async (format, dtype, compression) => {
      const { plain, pickled, stores } = workplace(format, { dtype, hidden: 200, vocab: 257 });
      const [one, other] = [path.join(stores, "plain"), path.join(stores, "pickled")];
      await decompose({ checkpoint: plain, store: one, compression });
      await decompose({ checkpoint: pickled, store: other, compression });
      expect(Object.keys(layerFiles(one))).toHaveLength(4);
      expect(layerFiles(other)).toEqual(layerFiles(one));
      const { manifest } = await openLayerStore(other);
      expect(manifest.dropped).toEqual([]);
    },
  );

  it("deletes the shards on request, and nothing else", async () => {
    const { pickled, stores } = workplace("sharded", {});
    const { deleted } = await decompose({ checkpoint: pickled, store: stores, deleteOriginal: true });
    expect(deleted.map((file) => path.basename(file))).toEqual(["pytorch_model-1.bin", "pytorch_model-2.bin"]);
    const left = ["config.json", "generation_config.json", "pytorch_model.bin.index.json"];
    expect(readdirSync(pickled).sort()).toEqual(left);
  });

  it("refuses a pickle that runs something, before it writes anything", async () => {
    const { pickled, stores } = workplace("zip", {});
    const call = Buffer.from("\x80\x02cposix\nsystem\n(X\x02\0\0\0idtR.", "latin1");
    writeFileSync(path.join(pickled, "pytorch_model.bin"), archive(call, {}));
    await expect(decompose({ checkpoint: pickled, store: stores })).rejects.toMatchObject({
      code: "PICKLE_REFUSED",
      message: expect.stringContaining('"posix.system"'),
      file: path.join(pickled, "pytorch_model.bin"),
    });
    expect(readdirSync(path.dirname(stores)).sort()).toEqual(["pickled", "plain"]);
  });
});
