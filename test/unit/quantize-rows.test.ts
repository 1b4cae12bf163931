import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { BlockWriter } from "../../dist/decompose/block-writer.js";
import { quantizeRows } from "../../dist/decompose/quantize-rows.js";
import { Scratch } from "../../dist/decompose/scratch.js";
import { Control } from "../../dist/decompose/task.js";
import { native } from "../../dist/native/binding.js";
import { generator, randomTensor } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

const MIB = 1024 * 1024;
const PREFIX_BYTES = 1234;

/** The bytes that the pieces give, after an odd prefix in source and output. */
function quantizeInPieces(
  source: Buffer,
  shape: {
    sourceFormat: "f32" | "f16" | "bf16";
    format: "8bit" | "4bit";
    rows: number;
    columns: number;
    block: number;
  },
  capacity: number,
): { bytes: Buffer; checksums: string } {
  const directory = temporaryDirectory();
  const [input, output] = [path.join(directory, "input"), path.join(directory, "output")] as const;
  writeFileSync(input, Buffer.concat([Buffer.alloc(PREFIX_BYTES), source]));
  const reader = new BlockReader(capacity);
  const writer = new BlockWriter(output, native().createTransfer(2, MIB), new Control());
  writer.appendZeros(PREFIX_BYTES);
  const { rows, columns, ...formats } = shape;
  const elementBytes = shape.sourceFormat === "f32" ? 4 : 2;
  const rowDims: [number, number][] = [[rows, columns * elementBytes]];
  const place = { kind: "strided", name: "w", file: input, offset: PREFIX_BYTES } as const;
  const rowSource = { ...place, elementBytes, rowDims, columns, columnStride: elementBytes };
  const segment = { kind: "quantize", name: "w", file: input, source: rowSource, columns, ...formats } as const;
  quantizeRows(segment, { reader, scratch: new Scratch() }, writer);
  const checksums = writer.finish();
  writer.close();
  reader.close();
  return { bytes: readFileSync(output), checksums };
}

describe("quantizeRows", () => {
  it.each([
    ["rows that straddle the buffer", "bf16", "8bit", 3000, 500, 64, 300_000],
    ["rows that straddle the buffer", "f32", "4bit", 4000, 700, 64, 2 * MIB],
    ["one row at a time", "f16", "8bit", 9, 300, 32, 600],
    ["rows longer than the reader", "f32", "8bit", 3, 10_001, 64, 8192],
    ["rows longer than the reader", "bf16", "4bit", 5, 4103, 64, 1000],
    ["rows longer than the output's buffer", "bf16", "8bit", 2, 1_500_000, 64, MIB],
  ] as const)("gives the bytes of the whole matrix for %s (%s to %s, %i x %i)", (...parameters) => {
    const [, sourceFormat, format, rows, columns, block, capacity] = parameters;
    const dtype = sourceFormat.toUpperCase() as "F32" | "F16" | "BF16";
    const { bytes: source } = randomTensor(dtype, [rows, columns], generator(5));
    const expected = Buffer.alloc(rows * native().rowBytes(format, columns, block));
    expect(native().quantize(sourceFormat, source, rows, columns, format, block, expected)).toBe(true);

    const { bytes, checksums } = quantizeInPieces(source, { sourceFormat, format, rows, columns, block }, capacity);
    expect(bytes.length).toBe(PREFIX_BYTES + expected.length);
    expect(bytes.subarray(PREFIX_BYTES).equals(expected)).toBe(true);
    for (let block = 0; block * MIB < bytes.length; block++) {
      const checksum = native().crc32c(bytes.subarray(block * MIB, (block + 1) * MIB));
      expect(Number.parseInt(checksums.slice(block * 8, block * 8 + 8), 16)).toBe(checksum);
    }
    expect(checksums.length).toBe(Math.ceil(bytes.length / MIB) * 8);
  });
});

describe("BlockReader", () => {
  it("reads any range, and says where a file ends too early", () => {
    const file = path.join(temporaryDirectory(), "file");
    const content = Buffer.from(Array.from({ length: 10_000 }, (_, index) => (index * 31) % 251));
    writeFileSync(file, content);
    const reader = new BlockReader(9000);
    for (const [offset, length] of [
      [0, 1],
      [4095, 2],
      [1, 9000],
      [9999, 1],
      [4096, 4096],
      [8192, 1808],
      [1000, 9000],
    ] as const) {
      expect(
        Buffer.from(reader.read(file, offset, length, "x")).equals(content.subarray(offset, offset + length)),
      ).toBe(true);
    }
    expect(() => reader.read(file, 9000, 1001, "the tensor")).toThrow(
      /ended at byte 10000, in the middle of the tensor/,
    );
    expect(() => reader.read(`${file}.gone`, 0, 1, "x")).toThrow(/ENOENT/);
    reader.close();
  });
});
