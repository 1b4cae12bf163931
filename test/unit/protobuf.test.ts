import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { CharsMap } from "../../dist/tokenizer/sentencepiece/chars-map.js";
import { SentencePieceCodec } from "../../dist/tokenizer/sentencepiece/codec.js";
import { PieceType, parseModelProto, type SentencePieceModel } from "../../dist/tokenizer/sentencepiece/model-proto.js";
import { ProtobufError, readFields } from "../../dist/tokenizer/sentencepiece/protobuf.js";

const folder = path.resolve(import.meta.dirname, "../fixtures/sentencepiece");
const fields = (...bytes: number[]) => [...readFields(Uint8Array.from(bytes))];
const piece = (text: string, ...rest: number[]) => {
  const body = [0x0a, text.length, ...Buffer.from(text), ...rest];
  return [0x0a, body.length, ...body];
};

describe("readFields", () => {
  it("reads the four wire types, and numbers as int32", () => {
    expect(fields(0x08, 0x96, 0x01)).toMatchObject([{ number: 1, wireType: 0, varint: 150, offset: 1 }]);
    expect(fields(0x08, ...Array(9).fill(0xff), 0x01)).toMatchObject([{ varint: -1 }]);
    expect(fields(0x12, 2, 7, 8, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8)).toMatchObject([
      { number: 2, wireType: 2, bytes: Uint8Array.of(7, 8), offset: 2 },
      { number: 3, wireType: 5, bytes: Uint8Array.of(1, 2, 3, 4) },
      { number: 4, wireType: 1, bytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
    ]);
  });

  it.each([
    ["a number that is cut off", [0x08, 0x80], "cut off"],
    ["a number of eleven bytes", [0x08, ...Array(10).fill(0x80), 1], "64 bits"],
    ["a number past 2^64", [0x08, ...Array(9).fill(0xff), 0x02], "64 bits"],
    ["a length past the end", [0x12, 5, 1], "5 bytes does not fit into the 1"],
    ["a length of 2^63", [0x12, ...Array(9).fill(0x80), 0x01, 0], "2^32 or more"],
    ["a tag of 2^35", [0x8a, 0x80, 0x80, 0x80, 0x80, 0x01, 0], "no field"],
    ["a length of 2^32 - 1", [0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], "4294967295 bytes"],
    ["four bytes that are three", [0x1d, 1, 2, 3], "does not fit"],
    ["a group", [0x0b, 0x0c], "wire type 3"],
    ["field 0", [0x00, 0x01], "field 0"],
  ])("refuses %s", (_, bytes, words) => {
    expect(() => fields(...bytes)).toThrow(ProtobufError);
    expect(() => fields(...bytes)).toThrow(words);
  });
});

describe("parseModelProto", () => {
  const parse = (...bytes: number[]) => parseModelProto(Uint8Array.from(bytes));

  it("has the defaults of the schema, and passes over fields that it does not know", () => {
    const model = parse(0xf8, 0x07, 1, ...piece("a"), 0xfa, 0x07, 1, 0xff);
    expect(model).toMatchObject({ kind: "unigram", pieces: ["a"], byteFallback: false, unknownSurface: " \u2047 " });
    expect(model.types).toEqual(Uint8Array.of(PieceType.normal));
    expect(model.normalizer).toMatchObject({ addDummyPrefix: true, removeExtraWhitespaces: true });
  });

  it.each([
    ["nothing", [], "no piece"],
    ["an empty piece", piece(""), "empty piece"],
    ["a type that does not exist", piece("a", 0x18, 9), "type 9"],
    ["a score that is no number", piece("a", 0x15, 0, 0, 0xc0, 0x7f), "NaN"],
    ["a score of the wrong type", piece("a", 0x10, 1), "wire type 0 instead of 5"],
    ["a text that is not UTF-8", [0x0a, 3, 0x0a, 1, 0xff], "UTF-8"],
    ["a model of words", [0x12, 2, 0x18, 3, ...piece("a")], "model type 3"],
    ["settings that are a number", [0x10, 1, ...piece("a")], "wire type 0 instead of 2"],
    ["a piece that ends within", [0x0a, 4, 0x0a, 9, 0x61, 0x62], "9 bytes does not fit into the 2"],
  ])("refuses %s", (_, bytes, words) => {
    expect(() => parse(...bytes)).toThrow(ProtobufError);
    expect(() => parse(...bytes)).toThrow(words);
  });

  it("refuses a model at whatever byte it is cut off, or reads whole pieces", () => {
    const bytes = readFileSync(path.join(folder, "bpe_defined.model"));
    const whole = parseModelProto(bytes);
    for (let end = 0; end < bytes.length; end += 7) {
      let model: SentencePieceModel | undefined;
      try {
        model = parseModelProto(bytes.subarray(0, end));
      } catch (error) {
        expect(error).toBeInstanceOf(ProtobufError);
      }
      if (model) expect(whole.pieces.slice(0, model.pieces.length)).toEqual(model.pieces);
    }
  });
});

describe("a codec of a forged model", () => {
  const none = { addedTokens: [], prefix: [], suffix: [], prefixesEveryText: true, cleansUpSpaces: false };
  const original = parseModelProto(readFileSync(path.join(folder, "unigram_defined.model")));

  it.each([
    ["no unknown piece", { types: original.types.map((type) => (type === PieceType.unknown ? 1 : type)) }, "unknown"],
    [
      "a byte of another name",
      { types: original.types.map((type, id) => (id === 400 ? PieceType.byte : type)) },
      "byte",
    ],
    ["not all bytes", { types: original.types.map((type, id) => (id === 10 ? PieceType.unused : type)) }, "256"],
  ])("with %s is refused", (_, change, words) => {
    expect(() => new SentencePieceCodec({ ...original, ...change }, none)).toThrow(words);
  });
});

describe("a table of replacements", () => {
  const table = (units: number[], replacements: string) => {
    const bytes = Buffer.alloc(4 + units.length * 4);
    bytes.writeUInt32LE(units.length * 4);
    for (const [i, unit] of units.entries()) bytes.writeUInt32LE(unit >>> 0, 4 + 4 * i);
    return Buffer.concat([bytes, Buffer.from(replacements)]);
  };
  const text = Buffer.from("a".repeat(10_000));

  it.each([
    ["nothing", Buffer.alloc(0), "trie of 0"],
    ["three bytes", Buffer.alloc(3), "trie of 0"],
    ["a size past the end", Buffer.from([255, 255, 255, 127, 0]), "trie of 2147483647"],
    ["a size that is no multiple of four", Buffer.from([5, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "trie of 5"],
  ])("with %s is refused", (_, bytes, words) => {
    expect(() => new CharsMap(bytes)).toThrow(words);
  });

  it("that goes in circles ends", () => {
    // The root leads to node 0x61, whose child for the same letter is itself.
    const units = Array(256).fill(0);
    units[0x61] = 0x61 | (0x61 << 10);
    expect(new CharsMap(table(units, "x\0")).match(text, 0)).toBeUndefined();
  });

  it("that points outside itself is refused, and so is a replacement without end or bound", () => {
    const leaf = (value: number) => {
      const units = Array(256).fill(0);
      units[0x61] = 0x61 | 0x100 | (0x01 << 10);
      units[0x60] = 0x80000000 | value;
      return units;
    };
    expect(Buffer.from(new CharsMap(table(leaf(0), "xy\0")).match(text, 0)?.replacement ?? []).toString()).toBe("xy");
    expect(() => new CharsMap(table(leaf(9), "x\0")).match(text, 0)).toThrow("outside");
    expect(() => new CharsMap(table(leaf(0), "x")).match(text, 0)).toThrow("outside");
    expect(() => new CharsMap(table(leaf(0), `${"x".repeat(5000)}\0`)).match(text, 0)).toThrow("5000 bytes");
    const far = Array(256).fill(0);
    far[0x61] = 0x61 | 0x100 | (0x1fffff << 10);
    expect(() => new CharsMap(table(far, "x\0")).match(text, 0)).toThrow("outside");
  });
});
