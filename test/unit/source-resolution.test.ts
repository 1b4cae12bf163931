import { writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import type { Checkpoint, CheckpointTensor } from "../../dist/checkpoint/checkpoint.js";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { batches } from "../../dist/decompose/copy-rows.js";
import { openRows } from "../../dist/decompose/open-rows.js";
import { Scratch } from "../../dist/decompose/scratch.js";
import type { TensorSource, TensorSpec } from "../../dist/models/architecture.js";
import { resolveSource } from "../../dist/models/source-resolution.js";
import { temporaryDirectory } from "../helpers/files.js";

const BASE = 24;
const ELEMENTS = 20_000;

/** A checkpoint of one float32 file in which element i is i, and tensors that all begin at byte 24. */
function checkpointOf(tensors: Record<string, Partial<CheckpointTensor>>): Checkpoint {
  const file = path.join(temporaryDirectory(), "model.safetensors");
  const content = Float32Array.from({ length: BASE / 4 + ELEMENTS }, (_, i) => i - BASE / 4);
  writeFileSync(file, new Uint8Array(content.buffer));
  const shard = { path: file, realPath: file };
  const entries = Object.entries(tensors).map(([name, tensor]) => [
    name,
    { name, dtype: "F32", offset: BASE, shard, ...tensor },
  ]);
  const known = { path: "checkpoint", config: {}, configFile: "config.json", companions: [] };
  return { ...known, tensors: new Map(entries as never) } as unknown as Checkpoint;
}

function read(checkpoint: Checkpoint, spec: TensorSpec, expert?: number): Float32Array {
  const { source } = resolveSource(checkpoint, spec, { layer: 3, expert });
  const pieces: Buffer[] = [];
  const workspace = { reader: new BlockReader(8192), scratch: new Scratch() };
  for (const { bytes } of batches(openRows(source, workspace))) pieces.push(Buffer.from(bytes));
  workspace.reader.close();
  return new Float32Array(new Uint8Array(Buffer.concat(pieces)).buffer);
}

function rowMajor(shape: readonly number[]): number[] {
  return shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
}

/** Which element of the checkpoint's tensor is element (row, column) of the architecture's, by the definition. */
function elementAt(
  source: TensorSource,
  strides: readonly number[],
  expert: number,
  row: number,
  column: number,
): number {
  const { transposed, rows, transposedGroups: groups, shape } = source;
  const [, sourceColumns = 1] = shape;
  let [r, c] = [row, column];
  if (rows) {
    let rest = row;
    r = rows.offset;
    for (const [count, stride] of [...rows.dims].reverse()) {
      r += (rest % count) * stride;
      rest = Math.floor(rest / count);
    }
  } else if (groups) {
    r = Math.floor(row / sourceColumns) * groups.stride + column;
    c = row % sourceColumns;
  }
  const matrix = source.experts === undefined ? strides : strides.slice(1);
  const [first = 0, second = 0] = matrix;
  const place = source.experts === undefined ? 0 : expert * (strides[0] as number);
  return place + (transposed ? c * first + r * second : r * first + c * second);
}

type Case = [what: string, shape: number[], source: Omit<TensorSource, "name">, stored: number[], strides?: number[]];

const cases: Case[] = [
  ["a matrix", [7, 5], { shape: [7, 5] }, [7, 5]],
  ["a matrix of odd strides", [7, 5], { shape: [7, 5] }, [7, 5], [3, 50]],
  ["a vector", [9], { shape: [9] }, [9]],
  ["every third element of a storage", [9], { shape: [9] }, [9], [3]],
  ["keys within a packed projection", [4, 5], { shape: [12, 5], rows: { offset: 6, dims: [[4, 1]] } }, [12, 5]],
  ["their bias", [4], { shape: [12], rows: { offset: 6, dims: [[4, 1]] } }, [12]],
  [
    "queries of grouped heads",
    [12, 3],
    {
      shape: [20, 3],
      rows: {
        offset: 0,
        dims: [
          [2, 10],
          [3, 2],
          [2, 1],
        ],
      },
    },
    [20, 3],
  ],
  ["an expert", [4, 6], { shape: [4, 6], experts: 3 }, [3, 4, 6]],
  ["a transposed matrix", [4, 6], { shape: [4, 6], transposed: true }, [6, 4]],
  ["a transposed expert", [4, 6], { shape: [4, 6], experts: 3, transposed: true }, [3, 6, 4]],
  [
    "up rows of an interleaved, transposed expert",
    [4, 6],
    { shape: [8, 6], experts: 3, transposed: true, rows: { offset: 1, dims: [[4, 2]] } },
    [3, 6, 8],
  ],
  ["its bias", [4], { shape: [8], experts: 3, rows: { offset: 1, dims: [[4, 2]] } }, [3, 8]],
  ["heads transposed", [15, 4], { shape: [21, 5], transposedGroups: { stride: 7, rows: 4 } }, [21, 5]],
  [
    "heads transposed, of a transposed matrix",
    [15, 4],
    { shape: [21, 5], transposed: true, transposedGroups: { stride: 7, rows: 4 } },
    [5, 21],
  ],
  ["a transposed tensor with swapped strides", [4, 6], { shape: [4, 6], transposed: true }, [6, 4], [1, 6]],
];

describe("resolveSource", () => {
  it.each(cases)("%s", (_, shape, partial, stored, strides) => {
    const checkpoint = checkpointOf({ "layers.3.w": { shape: stored, ...(strides ? { strides } : {}) } });
    const source = { name: "layers.{layer}.w", ...partial };
    const role = shape.length === 1 ? "vector" : "matrix";
    const expert = source.experts === undefined ? undefined : 2;
    const got = read(checkpoint, { name: "stored", shape, role, sources: [source] }, expert);
    const [rows = 0, columns = 1] = shape;
    const expected = Array.from({ length: rows * columns }, (_, i) =>
      elementAt(source, strides ?? rowMajor(stored), 2, Math.floor(i / columns), i % columns),
    );
    expect([...got]).toEqual(expected);
  });

  it("takes the first source that is there, and says which of them are not", () => {
    const checkpoint = checkpointOf({ "b.3": { shape: [2, 2] }, c: { shape: [2, 2], offset: BASE + 40 } });
    const sourcesOf = (...names: string[]) => names.map((name) => ({ name, shape: [2, 2] }));
    const spec = { name: "w", shape: [2, 2], role: "matrix" } as const;
    expect([...read(checkpoint, { ...spec, sources: sourcesOf("a.{layer}", "b.{layer}", "c") })]).toEqual([0, 1, 2, 3]);
    expect(resolveSource(checkpoint, { ...spec, sources: sourcesOf("c") }, { layer: 0 }).parts).toEqual(["c"]);
    expect(() => read(checkpoint, { ...spec, sources: sourcesOf("x.{layer}", "y.{layer}.{expert}") }, 5)).toThrow(
      /no tensor "x.3" \(or "y.3.5"\)/,
    );
  });

  it("derives norms of rows", () => {
    const checkpoint = checkpointOf({ w: { shape: [3, 4] } });
    const spec = { name: "norms", shape: [3], role: "vector", derive: "inverseRowNorm" } as const;
    const got = read(checkpoint, { ...spec, sources: [{ name: "w", shape: [3, 4] }] });
    const expected = [14, 126, 366].map((sum) => 1 / Math.sqrt(sum));
    for (const [row, value] of expected.entries()) expect(got[row]).toBeCloseTo(value, 6);
  });

  it("keeps the rows of block formats as they are", () => {
    const q8 = { dtype: "GGUF_Q8_0", shape: [2, 6, 64] };
    const checkpoint = checkpointOf({ w: q8 });
    const rows = { offset: 1, dims: [[3, 2]] } as const;
    const source = { name: "w", shape: [6, 64], experts: 2, rows };
    const spec: TensorSpec = { name: "w", shape: [3, 64], role: "matrix", sources: [source] };
    const resolved = resolveSource(checkpoint, spec, { layer: 0, expert: 1 });
    // A row is 2 blocks of 34 bytes.
    expect(resolved).toMatchObject({ sourceFormat: "q8_0", block: 32 });
    expect(resolved.source).toMatchObject({ offset: BASE + 7 * 68, elementBytes: 1, columns: 68, rowDims: [[3, 136]] });
    const transposed = { ...spec, sources: [{ name: "w", shape: [6, 64], experts: 2, transposed: true, rows }] };
    const wide = checkpointOf({ w: { ...q8, shape: [2, 64, 6] } });
    expect(() => resolveSource(wide, transposed, { layer: 0, expert: 1 })).toThrow(/cannot be transposed/);
  });

  it.each<[string, string, Partial<CheckpointTensor>, Partial<TensorSource>, RegExp]>([
    ["another shape", "TENSOR_MISMATCH", { shape: [2, 3] }, {}, /\[2, 3\], but config.json makes it \[3, 2\]/],
    ["no experts", "TENSOR_MISMATCH", { shape: [3, 2] }, { experts: 4 }, /makes it \[4, 3, 2\]/],
    ["no transposition", "TENSOR_MISMATCH", { shape: [3, 2] }, { transposed: true }, /makes it \[2, 3\]/],
    ["whole numbers", "UNSUPPORTED_MODEL", { shape: [3, 2], dtype: "I32" }, {}, /dtype I32/],
    ["rows outside", "INTERNAL", { shape: [3, 2] }, { rows: { offset: 1, dims: [[3, 1]] } }, /gives \[3, 2\]/],
    ["too few rows", "INTERNAL", { shape: [3, 2] }, { rows: { offset: 0, dims: [[2, 1]] } }, /gives \[2, 2\]/],
  ])("refuses a tensor with %s", (_, code, tensor, source, reason) => {
    const checkpoint = checkpointOf({ w: tensor });
    const spec: TensorSpec = {
      name: "w",
      shape: [3, 2],
      role: "matrix",
      sources: [{ name: "w", shape: [3, 2], ...source }],
    };
    const attempt = () => resolveSource(checkpoint, spec, { layer: 0, expert: 0 });
    expect(attempt).toThrow(reason);
    expect(attempt).toThrow(expect.objectContaining({ code }));
  });
});
