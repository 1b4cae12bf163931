import { writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import type { RowDimensions, StridedSource } from "../../dist/checkpoint/row-source.js";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { batches } from "../../dist/decompose/copy-rows.js";
import { openRows } from "../../dist/decompose/open-rows.js";
import type { RowReader } from "../../dist/decompose/row-source.js";
import { Scratch } from "../../dist/decompose/scratch.js";
import { contiguousRange } from "../../dist/decompose/strided-rows.js";
import { generator } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

/** Random bytes in a file, and a reader of them that counts. */
function makeFile(byteLength: number, capacity: number) {
  const file = path.join(temporaryDirectory(), "file");
  const random = generator(byteLength);
  const content = Buffer.from(Uint32Array.from({ length: Math.ceil(byteLength / 4) }, random).buffer, 0, byteLength);
  writeFileSync(file, content);
  const reader = new CountingReader(capacity);
  return { file, content, reader, workspace: { reader, scratch: new Scratch() } };
}

class CountingReader extends BlockReader {
  reads = 0;
  bytes = 0;

  override read(file: string, offset: number, length: number, what: string): Uint8Array {
    expect(length).toBeLessThanOrEqual(this.capacity);
    this.reads++;
    this.bytes += length;
    return super.read(file, offset, length, what);
  }
}

/** Element by element, from the definition. */
function expectedBytes(content: Buffer, source: StridedSource): Buffer {
  const pieces: Buffer[] = [];
  const visit = (dims: RowDimensions, place: number): void => {
    const [dim, ...rest] = dims;
    if (!dim) {
      for (let column = 0; column < source.columns; column++) {
        const start = place + column * source.columnStride;
        pieces.push(content.subarray(start, start + source.elementBytes));
      }
      return;
    }
    for (let digit = 0; digit < dim[0]; digit++) visit(rest, place + digit * dim[1]);
  };
  visit(source.rowDims, source.offset);
  return Buffer.concat(pieces);
}

function allBytes(rows: RowReader): Buffer {
  const pieces: Buffer[] = [];
  for (const { bytes } of batches(rows)) pieces.push(Buffer.from(bytes));
  return Buffer.concat(pieces);
}

type Case = [what: string, elementBytes: 1 | 2 | 4, rowDims: RowDimensions, columns: number, columnStride: number];

const cases: Case[] = [
  ["one row", 2, [[1, 0]], 700, 2],
  ["no dimensions", 4, [], 7, 4],
  ["whole rows", 2, [[90, 66]], 33, 2],
  ["every other row", 2, [[45, 132]], 33, 2],
  [
    "rows regrouped",
    4,
    [
      [3, 528],
      [2, 264],
      [2, 44],
    ],
    11,
    4,
  ],
  [
    "odd rows, then even ones",
    2,
    [
      [2, 66],
      [45, 132],
    ],
    33,
    2,
  ],
  ["rows longer than the reader", 4, [[3, 40_004]], 10_001, 4],
  ["gaps longer than the reader", 2, [[4, 30_000]], 100, 2],
  ["a transposed matrix", 2, [[77, 2]], 50, 154],
  ["a transposed matrix of long lines", 4, [[9000, 4]], 7, 36_000],
  ["every other column of a transposed matrix", 2, [[38, 4]], 50, 154],
  [
    "transposed groups",
    2,
    [
      [3, 30 * 154],
      [77, 2],
    ],
    13,
    154,
  ],
  [
    "a transposed matrix with its rows regrouped",
    2,
    [
      [3, 8],
      [5, 24],
      [4, 2],
    ],
    21,
    120,
  ],
  ["a column", 4, [[60, 4]], 1, 60],
  [
    "an axis of stride 0",
    2,
    [
      [5, 0],
      [3, 20],
    ],
    10,
    2,
  ],
  ["columns of stride 0", 2, [[5, 2]], 6, 0],
  ["every third element", 4, [[20, 400]], 33, 12],
  ["every third element of rows longer than the reader", 2, [[2, 30_000]], 5000, 6],
  [
    "elements of a vector",
    4,
    [
      [7, 60],
      [3, 4],
    ],
    1,
    4,
  ],
  [
    "rows of bytes",
    1,
    [
      [2, 34],
      [10, 68],
    ],
    34,
    1,
  ],
];

describe("rows of a strided source", () => {
  it.each(cases)("%s (%i bytes an element)", (_, elementBytes, rowDims, columns, columnStride) => {
    for (const [offset, capacity] of [
      [0, 6000],
      [4096, 1 << 20],
      [77, 9000],
    ] as const) {
      const { file, content, workspace } = makeFile(400_000, capacity);
      const source = {
        kind: "strided",
        name: "w",
        file,
        offset,
        elementBytes,
        rowDims,
        columns,
        columnStride,
      } as const;
      expect(allBytes(openRows(source, workspace)).equals(expectedBytes(content, source))).toBe(true);
      const range = contiguousRange(source);
      if (range) {
        const { offset: start, byteLength } = range;
        expect(content.subarray(start, start + byteLength).equals(expectedBytes(content, source))).toBe(true);
      }
    }
  });

  it("reads any batch of rows", () => {
    const { file, content, workspace } = makeFile(200_000, 10_000);
    const rowDims: RowDimensions = [
      [10, 4000],
      [19, 2],
    ];
    const place = { kind: "strided", name: "w", file, offset: 3, elementBytes: 2 } as const;
    const source = { ...place, rowDims, columns: 12, columnStride: 300 };
    const rows = openRows(source, workspace);
    const expected = expectedBytes(content, source);
    for (const [first, count] of [
      [0, 1],
      [17, 5],
      [30, 100],
      [189, 1],
    ] as const) {
      const { rowBytes } = rows;
      expect(Buffer.from(rows.read(first, count))).toEqual(
        expected.subarray(first * rowBytes, (first + count) * rowBytes),
      );
    }
  });

  it("reads neighbouring pieces together, and skips what is far away", () => {
    const near = makeFile(1 << 20, 1 << 20);
    const place = { kind: "strided", name: "w", offset: 0, elementBytes: 2, columns: 64, columnStride: 2 } as const;
    for (const { bytes } of batches(openRows({ ...place, file: near.file, rowDims: [[512, 2048]] }, near.workspace))) {
      expect(bytes.length).toBe(512 * 128);
    }
    expect(near.reader.reads).toBe(1);

    const far = makeFile(4 << 20, 1 << 20);
    for (const _ of batches(openRows({ ...place, file: far.file, rowDims: [[8, 500_000]] }, far.workspace)));
    expect(far.reader.bytes).toBe(8 * 128);

    // A transposed matrix that fits in a strip is read once.
    const transposed = makeFile(2 << 20, 1 << 20);
    const source = {
      ...place,
      file: transposed.file,
      rowDims: [[1024, 2]] as RowDimensions,
      columns: 1024,
      columnStride: 2048,
    };
    for (const _ of batches(openRows(source, transposed.workspace)));
    expect(transposed.reader.bytes).toBe(2 << 20);
    expect(transposed.reader.reads).toBeLessThan(5);
  });

  it("says where the file ends too early", () => {
    const { file, workspace } = makeFile(1000, 4096);
    const place = { kind: "strided", name: "the tensor", file, offset: 0, elementBytes: 2 } as const;
    const rows = openRows({ ...place, rowDims: [[30, 2]], columns: 20, columnStride: 60 }, workspace);
    expect(() => rows.read(0, 30)).toThrow(/ended at byte 1000, in the middle of the tensor/);
  });
});

describe("inverse row norms", () => {
  it("are those of a float64 walk, and finite for a row of zeros", () => {
    const { file, content, workspace } = makeFile(40_000, 4096);
    const [rows, columns] = [50, 133];
    const values = Float32Array.from({ length: rows * columns }, (_, i) => (i < columns ? 0 : content.readInt8(i) / 7));
    writeFileSync(file, new Uint8Array(values.buffer));
    const place = { kind: "strided", name: "w", file, offset: 0, elementBytes: 4 } as const;
    const of: StridedSource = { ...place, rowDims: [[rows, columns * 4]], columns, columnStride: 4 };
    const norms = openRows({ kind: "inverseRowNorm", of, rows, columns, format: "f32" }, workspace);
    const got = allBytes(norms);
    for (let row = 0; row < rows; row++) {
      const norm = Math.hypot(...values.subarray(row * columns, (row + 1) * columns));
      const expected = Math.fround(1 / Math.max(norm, 1e-12));
      expect(Math.abs(got.readFloatLE(row * 4) - expected)).toBeLessThanOrEqual(expected * 1e-7);
    }
    expect(got.length).toBe(rows * 4);
  });
});
