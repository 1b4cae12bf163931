import { truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { BlockReader } from "../../dist/decompose/block-reader.js";
import { generator } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

const SIZE = 100_001;
const CAPACITY = 16 * 1024;

function randomFile(): { file: string; bytes: Uint8Array } {
  const random = generator(7);
  const bytes = Uint8Array.from({ length: SIZE }, () => random() * 256);
  const file = path.join(temporaryDirectory(), "data");
  writeFileSync(file, bytes);
  return { file, bytes };
}

describe("BlockReader", () => {
  it("gives the bytes of every read, foreseen or not", () => {
    const { file, bytes } = randomFile();
    const other = randomFile();
    const reader = new BlockReader(CAPACITY);
    const expectBytes = (from: number, length: number, end?: number) => {
      const read = reader.read(file, from, length, "a tensor", end);
      expect(Buffer.from(read).equals(bytes.subarray(from, from + length))).toBe(true);
    };
    for (let offset = 13; offset < SIZE; offset += 5000) expectBytes(offset, Math.min(5000, SIZE - offset), SIZE);
    // Foretold reads that do not come: another place, a longer one, another file, the same bytes again.
    expectBytes(0, 5000, SIZE);
    expectBytes(60_000, 5000, SIZE);
    expectBytes(65_000, CAPACITY, SIZE);
    expectBytes(65_000, 5000, SIZE);
    reader.next = { file, offset: 30_001, byteLength: SIZE };
    expectBytes(70_000, 1000, 71_000);
    expectBytes(30_001, 9000);
    reader.next = { file: other.file, offset: 0, byteLength: SIZE };
    expectBytes(70_000, 1000, 71_000);
    reader.read(other.file, 0, 1000, "a tensor", SIZE);
    expectBytes(1000, 1000);
    reader.close();
  });

  it("says where a file ended that became shorter while it was read ahead", () => {
    const { file } = randomFile();
    const reader = new BlockReader(CAPACITY);
    reader.read(file, 0, 4096, "a tensor", SIZE);
    reader.read(file, 4096, 4096, "a tensor", SIZE);
    truncateSync(file, 10_000);
    reader.read(file, 50, 50, "a tensor");
    expect(() => reader.read(file, 8192, 4096, "a tensor", SIZE)).toThrow(
      /ended at byte 10000, in the middle of a tensor/,
    );
    reader.close();
  });
});
