/** What the addon refuses to make a model of. The runtime's own checks have native tests. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { native } from "../../dist/native/binding.js";
import { type NativeModelDescription, type NativeStep, READ_DONE } from "../../dist/native/types.js";

const directory = mkdtempSync(join(tmpdir(), "layerstream-description-"));
afterAll(() => rmSync(directory, { recursive: true }));

const WIDTH = 4;
const EXPERTS = 2;
const file = join(directory, "weights");
const weights = new Float32Array(4096 / 4);
// Matrices of [4, 4] at 0 (head), [2, 4] at 64 (router), [4, 4] at 96 and 160 (experts): embeddings are rows of the head.
weights.set([1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4]);
weights.set([1, 0, 0, 0, -1, 0, 0, 0], 16);
for (let i = 0; i < WIDTH; i++) {
  weights[24 + i * 5] = 10;
  weights[40 + i * 5] = 100;
}
writeFileSync(file, weights);

const matrix = (offset: number, rows: number) => ({
  format: "f32" as const,
  block: 0,
  rows,
  columns: WIDTH,
  rowBytes: WIDTH * 4,
  offset,
});
const product = { op: "matmul", matrix: 0, accumulate: false, scale: 1, inputOffset: 0, outputOffset: 0 } as const;

/** Each token takes one expert, which multiplies the normed token by 10 or 100. */
function description(): NativeModelDescription {
  const plans: NativeStep[][] = [
    [
      {
        op: "norm",
        input: "hidden",
        output: "normed",
        groups: 1,
        width: WIDTH,
        epsilon: 0,
        centered: false,
        groupWeights: false,
        accumulate: false,
      },
      { ...product, input: "hidden", output: "router" },
      {
        op: "route",
        logits: "router",
        input: "normed",
        output: "hidden",
        experts: EXPERTS,
        perToken: 1,
        scoring: "softmax",
        groupCount: 1,
        groupsKept: 1,
        groupScore: "max",
        normalize: true,
        scale: 1,
      },
    ],
    [{ ...product, input: "expertInput", output: "expertOutput" }],
    [
      { ...product, input: "hidden", output: "logits" },
      { op: "softCap", target: "logits", width: WIDTH, cap: 1e6 },
    ],
  ];
  const stage = { file: 0, heldChunks: Uint8Array.of(1), vectors: [] };
  return {
    device: "cpu",
    threads: 1,
    precision: "exact",
    files: [{ path: file, size: 4096 }],
    plans,
    stages: [
      { ...stage, kind: 0, matrices: [matrix(64, EXPERTS)] },
      { ...stage, kind: 1, matrices: [matrix(96, WIDTH)], routed: { expert: 0 } },
      { ...stage, kind: 1, matrices: [matrix(160, WIDTH)], routed: { expert: 1 } },
      { ...stage, kind: 2, matrices: [matrix(0, WIDTH)] },
    ],
    embedding: { stage: 3, matrix: 0, scale: 1 },
    registers: {
      hidden: WIDTH,
      normed: WIDTH,
      router: EXPERTS,
      expertInput: WIDTH,
      expertOutput: WIDTH,
      logits: WIDTH,
    },
    ropeDims: [],
    chunkBytes: 4096,
    ringBytes: 0,
    slotBytes: 0,
    readAhead: true,
    expertRingBytes: 0,
    maxTokens: 4,
    vocabSize: WIDTH,
    kvLayers: 0,
    kvHeads: 0,
    keyDim: 0,
    valueDim: 0,
    pageCount: 1,
    kvPartPages: 0,
    pagePositions: 8,
    kvFormat: "f32",
    blockTokens: 0,
    normedCarried: true,
  };
}

type Loose = Record<string, unknown>;

/** The description with `value` at a path of keys. */
function changed(path: string, value: unknown): NativeModelDescription {
  const copy = description();
  const keys = path.split(".");
  const last = keys.pop() as string;
  const parent = keys.reduce((node: Loose, key) => node[key] as Loose, copy as unknown as Loose);
  parent[last] = value;
  return copy;
}

/** Whether it throws or rejects. */
const create = async (description: NativeModelDescription) => native().createModel(description);

describe("a model's description", () => {
  it("makes a model whose experts run when chosen", async () => {
    const addon = native();
    const model = await addon.createModel(description());
    addon.setWorkingMemory(model, 2, Uint8Array.of(1), 0);
    const logits = new Float32Array(2 * WIDTH);
    const pass = addon.runPass(model, {
      tokens: Uint32Array.of(0, 1),
      segments: [{ tokens: 2, firstPosition: 0, pages: Uint32Array.of(0) }],
      ropes: [],
      prompt: true,
      requestTokens: 2,
      allLogits: true,
      logits,
    });
    expect(addon.readTape(model)).toBe(READ_DONE);
    await pass;
    // Token 0 is [1, 0, 0, 0], normed [2, 0, 0, 0]; token 1 [0, 2, 0, 0], before and after. Its router logits are equal:
    // both take expert 0.
    const expected = [1 + 10 * 2, 0, 0, 0, 0, 2 * (2 + 10 * 2), 0, 0];
    for (const [index, logit] of logits.entries()) expect(logit).toBeCloseTo(expected[index] as number, 3);
    // A page each of three stages: expert 1 is not read.
    expect(addon.modelStats(model).bytesRead).toBe(3 * 4096);
    addon.destroyModel(model);
  });

  it.each([
    ["plans.0.0.op", "rmsNorm"],
    ["plans.0.0.input", "nowhere"],
    ["plans.0.0.width", -1],
    ["plans.0.0.width", 1.5],
    ["plans.0.0.width", Number.NaN],
    ["plans.0.0.width", "4"],
    ["plans.0.0.epsilon", undefined],
    ["plans.0.1.matrix", 2 ** 32],
    ["plans.0.1.groups", { rows: 0, inputStride: 0, outputStride: 0 }],
    ["plans.0.2.scoring", "argmax"],
    ["plans.0.2.perToken", 3],
    ["plans.0", [5]],
    ["stages.1.routed", { expert: 1 }],
    ["stages.1.routed", undefined],
    ["stages.0.matrices.0.format", "f64"],
    ["stages.0.matrices", undefined],
    ["stages.0.heldChunks", [1]],
    ["stages.0.heldChunks", Uint8Array.of(2)],
    ["stages.0.heldChunks", Uint8Array.of(1, 1)],
    ["stages.0.matrices.0.adapters", [{ rank: 1, scale: 1, a: new Float32Array(4), b: [1, 2] }]],
    ["registers.hidden", 3],
    ["ropeDims", ["8"]],
    ["ropeDims", [3]],
    ["embedding.stage", 7],
    ["maxTokens", 0],
  ])("with %s = %j is refused", async (path, value) => {
    await expect(create(changed(path, value))).rejects.toMatchObject({ code: "INTERNAL" });
  });

  it.each([
    ["stages.0.matrices.0.rowBytes", 15],
    ["stages.0.matrices.0.offset", 4096],
    ["stages.0.matrices.0.offset", Number.MAX_SAFE_INTEGER],
    ["stages.0.matrices.0.columnOrder", 4092],
    ["stages.0.matrices.0.rows", 2 ** 32 - 1],
  ])("with %s = %j, as a damaged store would have it, is refused", async (path, value) => {
    await expect(create(changed(path, value))).rejects.toMatchObject({ code: "STORE_INVALID" });
  });
});
