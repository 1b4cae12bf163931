/** Rows of quantized checkpoints: packed ones hold what float32 ones say, whatever is read of them at once. */
import { readdirSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../dist/checkpoint/checkpoint.js";
import type { RowSource } from "../../dist/checkpoint/row-source.js";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { openRows } from "../../dist/decompose/open-rows.js";
import { Scratch } from "../../dist/decompose/scratch.js";
import { type AssignedTensor, withPlainRows } from "../../dist/models/assignment.js";
import { type ClaimedMatrix, claimMatrix } from "../../dist/models/claim.js";
import type { TensorData } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";
import { quantizedFixtures } from "../helpers/golden.js";
import { assignedTensors, decodeRow, editFixture } from "../helpers/quantized.js";

const reader = new BlockReader(1024 * 1024);

const open = (source: RowSource) => openRows(source, { reader, scratch: new Scratch() });

/** All rows, `step` at a time. */
function readAll(source: RowSource, step = Number.POSITIVE_INFINITY): Uint8Array {
  const rows = open(source);
  const output = new Uint8Array(rows.rows * rows.rowBytes);
  const count = Math.min(step, rows.rowsAtOnce);
  for (let first = 0; first < rows.rows; first += count) {
    output.set(rows.read(first, Math.min(count, rows.rows - first)), first * rows.rowBytes);
  }
  return output;
}

const floats = (bytes: Uint8Array) => new Float32Array(Uint8Array.from(bytes).buffer);

function expanded(tensor: AssignedTensor): Float32Array {
  return floats(readAll(withPlainRows(tensor).source));
}

/** Weights of packed rows in the order of the input. */
function decoded({ source, sourceFormat, block = 0, shape, columnOrder }: AssignedTensor): Float32Array {
  const [rows = 0, columns = 0] = shape;
  const bytes = readAll(source);
  const rowBytes = bytes.length / rows;
  const order = columnOrder ? new Uint32Array(Uint8Array.from(readAll(columnOrder)).buffer) : undefined;
  const output = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const weights = decodeRow(sourceFormat, block, columns, bytes.subarray(row * rowBytes, (row + 1) * rowBytes));
    for (let c = 0; c < columns; c++) output[row * columns + (order?.[c] ?? c)] = weights[c] as number;
  }
  return output;
}

const names = readdirSync(quantizedFixtures);

describe.each(names)("%s", (name) => {
  const directory = path.join(quantizedFixtures, name);

  it("has packed matrices, or says why not, that hold exactly the checkpoint's weights", async () => {
    const quantized = (await assignedTensors(directory)).filter(({ source }) => source.kind === "packed");
    expect(quantized.length).toBeGreaterThan(3);
    for (const tensor of quantized) {
      expect(tensor.sourceFormat === "f32", tensor.name).toBe(tensor.expanded !== undefined);
      if (!tensor.expanded) expect(decoded(tensor), tensor.name).toEqual(expanded(tensor));
    }
  });

  it("gives the same rows whatever is read at once", async () => {
    const quantized = (await assignedTensors(directory)).filter(({ source }) => source.kind === "packed");
    for (const { source } of quantized) {
      const whole = readAll(source);
      for (const step of [1, 3, 13]) expect(Buffer.compare(readAll(source, step), whole)).toBe(0);
      const rows = open(source);
      for (const [first, wanted] of [
        [5, 2],
        [1, 9],
        [rows.rows - 3, 3],
        [0, 1],
      ] as const) {
        const count = Math.min(wanted, rows.rowsAtOnce);
        const expected = whole.subarray(first * rows.rowBytes, (first + count) * rows.rowBytes);
        expect(Buffer.compare(rows.read(first, count), expected)).toBe(0);
      }
    }
  });
});

it("a quantized head that is the embedding too has its columns in order", async () => {
  const checkpoint = editFixture("gptq_actorder", temporaryDirectory(), (tensors, config) => {
    config.tie_word_embeddings = true;
    for (const name of ["model.embed_tokens.weight", "lm_head.weight"]) tensors.delete(name);
    const groupIndex = tensors.get("model.layers.0.self_attn.q_proj.g_idx") as TensorData;
    tensors.set("lm_head.g_idx", groupIndex);
    tensors.set("lm_head.qweight", { dtype: "I32", shape: [4, 41], bytes: Buffer.alloc(4 * 41 * 4, 0x35) });
    tensors.set("lm_head.qzeros", { dtype: "I32", shape: [2, 6], bytes: Buffer.alloc(2 * 6 * 4, 0x77) });
    tensors.set("lm_head.scales", { dtype: "F16", shape: [2, 41], bytes: Buffer.alloc(2 * 41 * 2, 0x2c) });
  });
  const [head] = (await assignedTensors(checkpoint)).filter(({ role }) => role === "head" || role === "embedding");
  expect(head).toMatchObject({ shape: [41, 32], sourceFormat: "f32", expanded: expect.stringContaining("embedding") });
  expect(head?.columnOrder).toBeUndefined();
});

describe("views", () => {
  async function claimed(name: string, tensor: string): Promise<ClaimedMatrix> {
    const matrix = claimMatrix(await openCheckpoint(path.join(quantizedFixtures, name)), tensor);
    if (!matrix) throw new Error(`${tensor} is not quantized`);
    return matrix;
  }

  const dims = [
    [3, 10],
    [4, 2],
  ] as const;

  it.each([
    ["gptq_3bit", 32],
    ["awq_quant_config", 32],
    ["compressed_pack_symmetric", 32],
    ["fp8_tensor", 32],
    ["nf4_nested", 64],
    ["compressed_fp8_block", 32],
  ])("%s: rows apart from one another, in any format", async (name) => {
    const matrix = await claimed(name, "model.layers.0.mlp.up_proj.weight");
    const whole = readAll(matrix.take({}).source);
    const rowBytes = whole.length / matrix.shape[0];
    const view = readAll(matrix.take({ rows: { offset: 7, dims } }).source);
    expect(view.length).toBe(12 * rowBytes);
    for (let row = 0; row < 12; row++) {
      const place = 7 + Math.floor(row / 4) * 10 + (row % 4) * 2;
      const expected = whole.subarray(place * rowBytes, (place + 1) * rowBytes);
      expect(view.subarray(row * rowBytes, (row + 1) * rowBytes)).toEqual(expected);
    }
  });

  it("groups of rows transposed come in float32", async () => {
    const matrix = await claimed("compressed_fp8_channel", "model.layers.0.mlp.up_proj.weight");
    const [rows, columns] = matrix.shape;
    const { source, format, expanded: reason } = matrix.take({ transposedGroups: { stride: 16, rows: 10 } });
    expect([format, reason]).toEqual(["f32", "a transposed matrix"]);
    const plain = matrix.take({}).source;
    if (plain.kind !== "packed") throw new Error("The matrix is not packed.");
    const values = floats(readAll({ ...plain, format: "f32", block: undefined }));
    const transposed = floats(readAll(source, 7));
    expect(transposed.length).toBe((rows / 16) * columns * 10);
    for (let i = 0; i < transposed.length; i++) {
      const [line, row] = [Math.floor(i / 10), i % 10];
      const [group, column] = [Math.floor(line / columns), line % columns];
      expect(transposed[i]).toBe(values[(group * 16 + row) * columns + column]);
    }
  });

  it("each expert has the rows of its own", async () => {
    const matrix = await claimed("gpt_oss_mxfp4", "model.layers.0.mlp.experts.gate_up_proj");
    expect(matrix).toMatchObject({ shape: [64, 64], experts: 3 });
    const experts = [0, 1, 2].map((expert) => Buffer.from(readAll(matrix.take({ expert }).source)));
    expect(new Set(experts.map((bytes) => bytes.toString("hex"))).size).toBe(3);
    const interleaved = { offset: 1, dims: [[32, 2]] } as const;
    const up = readAll(matrix.take({ expert: 2, rows: interleaved }).source);
    const rowBytes = 32 + 2;
    expect(up.length).toBe(32 * rowBytes);
    for (let row = 0; row < 32; row++) {
      const start = (2 * row + 1) * rowBytes;
      expect(up.subarray(row * rowBytes, (row + 1) * rowBytes)).toEqual(
        Uint8Array.from((experts[2] as Buffer).subarray(start, start + rowBytes)),
      );
    }
  });
});
