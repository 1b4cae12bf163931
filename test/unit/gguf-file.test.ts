import { writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { readGgufHeader } from "../../dist/checkpoint/gguf/gguf-file.js";
import type { LayerstreamError } from "../../dist/errors.js";
import { temporaryDirectory } from "../helpers/files.js";
import { encodeGguf, F32, type Gguf, type Tensor, text, u32, u64, type Value } from "../helpers/gguf.js";

function write(content: Buffer | Gguf): string {
  const file = path.join(temporaryDirectory(), "model.gguf");
  writeFileSync(file, Buffer.isBuffer(content) ? content : encodeGguf(content));
  return file;
}

const vector = (name: string, length = 8): Tensor => ({
  name,
  type: F32,
  dimensions: [length],
  bytes: Buffer.alloc(length * 4),
});

async function failure(content: Buffer | Gguf): Promise<LayerstreamError> {
  try {
    await readGgufHeader(write(content));
  } catch (error) {
    return error as LayerstreamError;
  }
  throw new Error("the file was accepted");
}

describe.each([2, 3])("version %i", (version) => {
  it("gives every metadata value and the place of every tensor", async () => {
    const metadata: [string, Value][] = [
      ["a.u8", { u8: 200 }],
      ["a.i32", { i32: -7 }],
      ["a.u64", { u64: 2n ** 40n }],
      ["a.huge", { u64: 2n ** 63n }],
      ["a.f32", { f32: 0.5 }],
      ["a.yes", { boolean: true }],
      ["a.text", { string: "grüße 🦙" }],
      ["a.list", { strings: ["", "x", "▁the"] }],
      ["a.numbers", { f32s: [1, -2.5] }],
      ["general.alignment", { u32: 64 }],
    ];
    const q4 = { name: "q4", type: 2, dimensions: [64, 3], bytes: Buffer.alloc(108) };
    const bytes = encodeGguf({ version, metadata, tensors: [vector("first", 5), q4], alignment: 64 });
    const header = await readGgufHeader(write(bytes));
    expect(header.version).toBe(version);
    const values = header.metadata;
    expect(values.number("a.u8")).toBe(200);
    expect(values.number("a.i32")).toBe(-7);
    expect(values.count("a.u64")).toBe(2 ** 40);
    expect(() => values.number("a.huge")).toThrow(/9223372036854775808/);
    expect(values.number("a.f32")).toBe(0.5);
    expect(values.boolean("a.yes")).toBe(true);
    expect(values.string("a.text")).toBe("grüße 🦙");
    expect(values.strings("a.list")).toEqual(["", "x", "▁the"]);
    expect(Array.from(values.numbers("a.numbers") as Float32Array)).toEqual([1, -2.5]);
    expect(values.string("absent")).toBeUndefined();
    expect(() => values.string("a.u8")).toThrow(/a\.u8.*must be a string/);
    expect(() => values.count("a.i32")).toThrow(/-7/);

    expect(header.dataOffset % 64).toBe(0);
    expect(header.dataOffset).toBe(bytes.length - 64 - 128);
    const [first, second] = [...header.tensors.values()];
    expect(first).toMatchObject({ name: "first", dimensions: [5], offset: header.dataOffset, byteLength: 20 });
    expect(second).toMatchObject({ name: "q4", dimensions: [64, 3], offset: header.dataOffset + 64, byteLength: 108 });
    expect(second?.type.dtype).toBe("GGUF_Q4_0");
  });
});

it("reads a header longer than its window", async () => {
  const tokens = Array.from({ length: 200_000 }, (_, index) => `token ${index}`);
  const long = "x".repeat(3_000_000);
  const header = await readGgufHeader(
    write({
      metadata: [
        ["tokens", { strings: tokens }],
        ["long", { string: long }],
      ],
      tensors: [vector("a")],
    }),
  );
  expect(header.metadata.strings("tokens")).toEqual(tokens);
  expect(header.metadata.string("long")).toBe(long);
  expect(header.tensors.get("a")?.offset).toBe(header.dataOffset);
});

it("the hash covers the header and nothing else", async () => {
  const bytes = encodeGguf({ metadata: [["a", { u32: 1 }]], tensors: [vector("a")] });
  const { hash } = await readGgufHeader(write(bytes));
  const otherData = Buffer.from(bytes);
  otherData[bytes.length - 1] = 1;
  expect((await readGgufHeader(write(otherData))).hash).toBe(hash);
  const otherHeader = encodeGguf({ metadata: [["a", { u32: 2 }]], tensors: [vector("a")] });
  expect((await readGgufHeader(write(otherHeader))).hash).not.toBe(hash);
});

it("the file may end with the header", async () => {
  const header = await readGgufHeader(write({ metadata: [["split.no", { u32: 0 }]], tensors: [] }));
  expect(header.tensors.size).toBe(0);
});

describe("what a file claims is not believed", () => {
  const metadata: [string, Value][] = [["a", { u32: 1 }]];
  const withValue = (raw: Buffer): Gguf => ({ metadata: [["k", { raw }]], tensors: [] });
  const withTensor = (tensor: Partial<Tensor>): Gguf => ({ metadata, tensors: [{ ...vector("t"), ...tensor }] });
  const cases: [string, Buffer | Gguf, RegExp][] = [
    ["nothing", Buffer.alloc(0), /ends in the header/],
    ["other bytes", Buffer.alloc(64), /does not start with GGUF/],
    ["version 1", { version: 1, metadata, tensors: [] }, /version 1/],
    ["big-endian order", { version: 0x0300_0000, metadata, tensors: [] }, /big-endian/],
    ["2^60 tensors", { metadata, tensors: [], tensorCount: 2n ** 60n }, /1152921504606846976 tensors/],
    [
      "more tensors than there are",
      { metadata, tensors: [], tensorCount: 5n, alignment: 1 },
      /ends in a tensor's name/,
    ],
    ["2^60 keys", { metadata, tensors: [], keyCount: 2n ** 60n }, /1152921504606846976 metadata keys/],
    ["more keys than there are", { metadata: [], tensors: [], keyCount: 1n, alignment: 1 }, /ends in a metadata key/],
    [
      "a string of 2^63 bytes",
      withValue(Buffer.concat([u32(8), u64(2n ** 63n)])),
      /string of 9223372036854775808 bytes/,
    ],
    ["a string longer than the file", withValue(Buffer.concat([u32(8), u64(1000)])), /ends in the value of "k": 1000/],
    ["2^62 strings", withValue(Buffer.concat([u32(9), u32(8), u64(2n ** 62n)])), /4611686018427387904 elements/],
    ["10^9 numbers", withValue(Buffer.concat([u32(9), u32(4), u64(10n ** 9n)])), /1000000000 elements/],
    [
      "an array that overflows",
      withValue(Buffer.concat([u32(9), u32(10), u64(2n ** 61n)])),
      /2305843009213693952 elements/,
    ],
    ["nested arrays", withValue(Buffer.concat([u32(9), u32(9), u64(1)])), /array of arrays/],
    ["an unknown value type", withValue(u32(13)), /unknown metadata type 13/],
    ["an unknown element type", withValue(Buffer.concat([u32(9), u32(99), u64(1)])), /unknown metadata type 99/],
    ["a boolean of 2", withValue(Buffer.concat([u32(7), Buffer.from([2])])), /boolean/],
    ["broken UTF-8", withValue(Buffer.concat([u32(8), u64(2), Buffer.from([0xc3, 0x28])])), /not valid UTF-8/],
    ["a key twice", { metadata: [...metadata, ...metadata], tensors: [] }, /key "a" twice/],
    ["an alignment of 0", { metadata: [["general.alignment", { u32: 0 }]], tensors: [] }, /general\.alignment 0/],
    ["an alignment of 48", { metadata: [["general.alignment", { u32: 48 }]], tensors: [] }, /general\.alignment 48/],
    ["an alignment of 2^31", { metadata: [["general.alignment", { u32: 2 ** 31 }]], tensors: [] }, /2147483648/],
    ["a tensor twice", { metadata, tensors: [vector("t"), vector("t")] }, /"t" is described twice/],
    ["no dimensions", withTensor({ dimensions: [] }), /0 dimensions/],
    ["five dimensions", withTensor({ dimensions: [2, 2, 2, 1, 1] }), /5 dimensions/],
    ["an empty tensor", withTensor({ dimensions: [0] }), /is empty/],
    ["sizes whose product overflows", withTensor({ dimensions: [2n ** 33n, 2n ** 33n] }), /more than a file/],
    ["a product that wraps to the true size", withTensor({ dimensions: [8, 2n ** 61n + 1n] }), /more than a file/],
    ["an unknown type", withTensor({ type: 999 }), /unknown type 999/],
    ["rows of half blocks", withTensor({ type: 8, dimensions: [48] }), /no whole blocks of 32/],
    ["an offset of 2^63", withTensor({ offset: 2n ** 63n }), /more than a file/],
    ["an offset past the end", withTensor({ offset: 64n }), /ends at byte/],
    ["an offset off the alignment", withTensor({ offset: 4n, dimensions: [2] }), /not aligned to 32/],
    [
      "tensors that overlap",
      { metadata, tensors: [vector("a", 16), { ...vector("b", 16), offset: 32n }] },
      /"b" at byte \d+ overlaps/,
    ],
  ];
  it.each(cases)("%s", async (_, content, message) => {
    const error = await failure(content);
    expect(error.message).toMatch(message);
    expect(error.code).toBe("GGUF_INVALID");
    expect(error.message).toContain("model.gguf");
  });

  it("a forged length of a key or a name", async () => {
    const start = Buffer.concat([Buffer.from("GGUF"), u32(3), u64(1), u64(1)]);
    const key = await failure(Buffer.concat([start, u64(2n ** 63n), Buffer.alloc(64)]));
    expect(key.message).toMatch(/string of 9223372036854775808 bytes in a metadata key/);
    const pair = Buffer.concat([text("a"), u32(4), u32(1)]);
    const name = await failure(Buffer.concat([start, pair, u64(2n ** 40n), Buffer.alloc(64)]));
    expect(name.message).toMatch(/string of 1099511627776 bytes in a tensor's name/);
  });

  it("types that exist but are not computed with are named", async () => {
    const error = await failure(withTensor({ type: 16, dimensions: [256], bytes: Buffer.alloc(66) }));
    expect(error.code).toBe("UNSUPPORTED_MODEL");
    expect(error.message).toMatch(/IQ2_XXS.*Q4_K/);
  });

  it("every truncation and every changed byte of a file is read or refused, never worse", async () => {
    const bytes = encodeGguf({
      metadata: [
        ["a", { strings: ["x", "yy"] }],
        ["b", { f32: 1 }],
      ],
      tensors: [vector("t"), vector("u")],
    });
    const file = write(bytes);
    for (let length = 0; length < bytes.length; length++) {
      writeFileSync(file, bytes.subarray(0, length));
      await expect(readGgufHeader(file), `${length} bytes`).rejects.toMatchObject({ name: "LayerstreamError" });
    }
    for (let index = 0; index < bytes.length; index++) {
      const changed = Buffer.from(bytes);
      changed[index] = (changed[index] as number) ^ 0xff;
      writeFileSync(file, changed);
      const error: unknown = await readGgufHeader(file).catch((reason: unknown) => reason);
      if (error instanceof Error) expect(error, `byte ${index}`).toMatchObject({ name: "LayerstreamError" });
    }
  });
});
