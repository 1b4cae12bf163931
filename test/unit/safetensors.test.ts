import { writeFileSync } from "node:fs";
import path from "node:path";
import safetensors from "safetensors";
import { describe, expect, it } from "vitest";
import { encodeSafetensorsHeader, readSafetensorsHeader } from "../../dist/checkpoint/safetensors.js";
import { encodeSafetensors, generator, randomTensor, rawSafetensors } from "../helpers/checkpoint.js";
import { temporaryDirectory } from "../helpers/files.js";

function write(content: Uint8Array): string {
  const file = path.join(temporaryDirectory(), "model.safetensors");
  writeFileSync(file, content);
  return file;
}

const tensor = (shape: unknown, offsets: unknown, dtype: unknown = "F32") => ({ dtype, shape, data_offsets: offsets });
const header = (tensors: Record<string, unknown>) => JSON.stringify(tensors);

describe("readSafetensorsHeader", () => {
  it("finds tensors, metadata and where the data lies", async () => {
    const random = generator(3);
    const written = new Map([
      ["b", randomTensor("BF16", [3, 5], random)],
      ["a", randomTensor("F32", [7], random)],
      ["empty", randomTensor("F16", [0, 4], random)],
      ["scalar", randomTensor("F32", [], random)],
    ]);
    const content = encodeSafetensors(written);
    const { tensors, metadata, size, dataOffset } = await readSafetensorsHeader(write(content));
    expect([...tensors.keys()].sort()).toEqual(["a", "b", "empty", "scalar"]);
    for (const [name, { dtype, shape, bytes }] of written) {
      const found = tensors.get(name);
      expect(found).toMatchObject({ name, dtype, shape, byteLength: bytes.length });
      const offset = found?.offset ?? 0;
      expect(content.subarray(offset, offset + bytes.length)).toEqual(bytes);
    }
    expect(metadata).toEqual({ format: "pt" });
    expect(size).toBe(content.length);
    expect(dataOffset).toBe(content.length - 3 * 5 * 2 - 7 * 4 - 4);
  });

  it("takes sub-byte dtypes that fill whole bytes, and a header padded with spaces", async () => {
    const text = `${header({ x: tensor([3, 2], [0, 3], "F4") })}    `;
    const { tensors } = await readSafetensorsHeader(write(rawSafetensors(text, 3)));
    expect(tensors.get("x")?.byteLength).toBe(3);
  });

  it.each<[string, string, Buffer]>([
    ["an empty file", "too few", Buffer.alloc(0)],
    ["a file of 7 bytes", "too few", Buffer.alloc(7)],
    ["a header longer than the file", "only 2 bytes follow", rawSafetensors("{}", 0, 3n)],
    ["a header above the limit", "the limit is", rawSafetensors("{}", 0, 100_000_001n)],
    ["a header length of 2^64 - 1", "the limit is", rawSafetensors("{}", 0, 2n ** 64n - 1n)],
    ["a header that is not JSON", "not valid JSON", rawSafetensors("{nonsense", 0)],
    ["an empty header", "not valid JSON", rawSafetensors("", 0)],
    ["a header that is a list", "not a JSON object", rawSafetensors("[]", 0)],
    ["a deep header", "nested more than", rawSafetensors('{"a":'.repeat(100), 0)],
    [
      "a tensor twice",
      '"a" twice',
      rawSafetensors(
        '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        1,
      ),
    ],
    ["metadata that is no map", "__metadata__", rawSafetensors('{"__metadata__":[]}', 0)],
    ["metadata with a number", "__metadata__", rawSafetensors('{"__metadata__":{"a":1}}', 0)],
    ["a tensor that is a number", 'tensor "x"', rawSafetensors('{"x":1}', 0)],
    ["an unknown dtype", 'unknown dtype "F128"', rawSafetensors(header({ x: tensor([1], [0, 16], "F128") }), 16)],
    ["a dtype from the prototype", "unknown dtype", rawSafetensors(header({ x: tensor([1], [0, 4], "toString") }), 4)],
    ["no dtype", "unknown dtype", rawSafetensors('{"x":{"shape":[1],"data_offsets":[0,4]}}', 4)],
    ["no shape", "shape", rawSafetensors('{"x":{"dtype":"F32","data_offsets":[0,4]}}', 4)],
    ["a negative size", "shape", rawSafetensors(header({ x: tensor([-1], [0, 4]) }), 4)],
    ["a fractional size", "shape", rawSafetensors(header({ x: tensor([0.5], [0, 2]) }), 2)],
    [
      "a size of 2^53",
      "shape",
      rawSafetensors('{"x":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,4]}}', 4),
    ],
    [
      "a shape whose product overflows",
      "which takes",
      rawSafetensors(header({ x: tensor([2 ** 32, 2 ** 32, 4], [0, 0]) }), 0),
    ],
    ["too many axes", "shape", rawSafetensors(header({ x: tensor(Array(65).fill(1), [0, 4]) }), 4)],
    ["one offset", "data_offsets", rawSafetensors(header({ x: tensor([1], [0]) }), 4)],
    [
      "an offset of 2^53",
      "data_offsets",
      rawSafetensors('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,9007199254740992]}}', 4),
    ],
    ["reversed offsets", "before it begins", rawSafetensors(header({ x: tensor([1], [4, 0]) }), 4)],
    ["fewer bytes than the shape takes", "has 4 bytes", rawSafetensors(header({ x: tensor([2], [0, 4]) }), 4)],
    ["half a byte", "not whole bytes", rawSafetensors(header({ x: tensor([3], [0, 2], "F4") }), 2)],
    ["overlapping tensors", "overlaps", rawSafetensors(header({ x: tensor([2], [0, 8]), y: tensor([1], [4, 8]) }), 8)],
    ["a hole", "hole", rawSafetensors(header({ x: tensor([1], [0, 4]), y: tensor([1], [8, 12]) }), 12)],
    ["a hole at the start", "hole", rawSafetensors(header({ x: tensor([1], [4, 8]) }), 8)],
    ["a tensor past the end", "truncated", rawSafetensors(header({ x: tensor([2], [0, 8]) }), 7)],
    ["bytes after the last tensor", "1 bytes after", rawSafetensors(header({ x: tensor([2], [0, 8]) }), 9)],
    ["bytes and no tensor", "after the last tensor", rawSafetensors("{}", 4)],
  ])("refuses %s", async (_, reason, content) => {
    const file = write(content);
    const error = await readSafetensorsHeader(file).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "SAFETENSORS_INVALID", file });
    expect((error as Error).message).toContain(file);
    expect((error as Error).message).toContain(reason);
    expect((error as Error).message).not.toContain("\n");
  });

  it("names tensor and offset", async () => {
    const content = rawSafetensors(header({ x: tensor([1], [0, 4]), y: tensor([1], [8, 12]) }), 12);
    const offset = content.length - 4;
    await expect(readSafetensorsHeader(write(content))).rejects.toMatchObject({ tensor: "y", offset });
  });

  it("says that a file is missing", async () => {
    const file = path.join(temporaryDirectory(), "gone.safetensors");
    await expect(readSafetensorsHeader(file)).rejects.toMatchObject({ code: "IO_ERROR", file });
  });
});

describe("encodeSafetensorsHeader", () => {
  const a = randomTensor("F32", [2, 3], generator(7));
  const b = randomTensor("BF16", [5], generator(8));
  const entries = [
    { name: "a", dtype: a.dtype, shape: a.shape, offset: 0, byteLength: a.bytes.length },
    { name: "__proto__", dtype: b.dtype, shape: b.shape, offset: a.bytes.length, byteLength: b.bytes.length },
  ];

  it("is read back, with data on a page", async () => {
    const encoded = encodeSafetensorsHeader(entries, 4096, { format: "pt", note: '"' });
    const file = write(Buffer.concat([encoded, a.bytes, b.bytes]));
    const { tensors, metadata, dataOffset } = await readSafetensorsHeader(file);
    expect(dataOffset).toBe(4096);
    expect([...tensors.values()]).toEqual(entries.map((entry) => ({ ...entry, offset: entry.offset + 4096 })));
    expect(metadata).toEqual({ format: "pt", note: '"' });
  });

  // The npm package fails on __metadata__, so it can only be asked about files without.
  it("is read by the npm package safetensors", () => {
    const named = entries.map((entry, index) => ({ ...entry, name: `tensor${index}` }));
    const encoded = encodeSafetensorsHeader(named, 64);
    const reader = new safetensors.SafeTensor(new Uint8Array(Buffer.concat([encoded, a.bytes, b.bytes])));
    expect(Buffer.from(reader.getTensor("tensor0"))).toEqual(a.bytes);
    expect(Buffer.from(reader.getTensor("tensor1"))).toEqual(b.bytes);
  });
});
