import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { IncrementalDecoder } from "../../dist/tokenizer/incremental-decoder.js";
import { SentencePieceCodec } from "../../dist/tokenizer/sentencepiece/codec.js";
import { parseModelProto, type SentencePieceModel } from "../../dist/tokenizer/sentencepiece/model-proto.js";
import { writeModelProto } from "../../dist/tokenizer/sentencepiece/model-writer.js";
import { AutoTokenizer } from "../../dist/tokenizer/tokenizer.js";

const folder = path.resolve(import.meta.dirname, "../fixtures/sentencepiece");
const tokenizers = path.resolve(import.meta.dirname, "../fixtures/tokenizers");
const names = readdirSync(folder).flatMap((name) => (name.endsWith(".model") ? [name.slice(0, -".model".length)] : []));
const root = mkdtempSync(path.join(tmpdir(), "sentencepiece-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

interface Expected {
  encoded: [text: string, ids: number[], decoded: string][];
  decoded: [ids: number[], text: string][];
  /** What the tokenizers library (Rust) gives for the model as tokenizer.json. */
  converted?: [text: string, ids: number[], decoded: string][];
}

function codecOf(model: SentencePieceModel): SentencePieceCodec {
  const none = { addedTokens: [], prefix: [], suffix: [], prefixesEveryText: true, cleansUpSpaces: false };
  return new SentencePieceCodec(model, none);
}

/** As tools/make-sentencepiece-fixtures.py builds it. */
function tokenizerJson(model: SentencePieceModel): object {
  const table = Buffer.from(model.normalizer.charsMap).toString("base64");
  return {
    version: "1.0",
    added_tokens: [],
    normalizer: table === "" ? null : { type: "Precompiled", precompiled_charsmap: table },
    pre_tokenizer: { type: "Metaspace", replacement: "\u2581", prepend_scheme: "always" },
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "Unigram",
      unk_id: 0,
      vocab: model.pieces.map((piece, id) => [piece, model.scores[id]]),
      byte_fallback: model.byteFallback,
    },
  };
}

describe.each(names.filter((name) => name.startsWith("unigram")))("%s as tokenizer.json", (name) => {
  it("encodes and decodes as the Rust library, with bytes, replacements and words", async () => {
    const model = parseModelProto(readFileSync(path.join(folder, `${name}.model`)));
    const directory = path.join(root, name);
    mkdirSync(directory);
    writeFileSync(path.join(directory, "tokenizer.json"), JSON.stringify(tokenizerJson(model)));
    const tokenizer = await AutoTokenizer.fromPretrained(directory);
    const { converted } = JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Expected;
    expect(converted?.length).toBeGreaterThan(40);
    for (const [text, ids, decoded] of converted ?? []) {
      expect(tokenizer.encode(text), text).toEqual(ids);
      expect(tokenizer.decode(ids), text).toBe(decoded);
      const decoder = tokenizer.createDecoder();
      expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(decoded);
    }
  });
});

describe.each(names)("%s", (name) => {
  const bytes = readFileSync(path.join(folder, `${name}.model`));
  const expected = JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Expected;

  it("encodes and decodes as sentencepiece", () => {
    const codec = codecOf(parseModelProto(bytes));
    expect(expected.encoded.length).toBeGreaterThan(40);
    for (const [text, ids, decoded] of expected.encoded) {
      expect(codec.encode(text, false), text).toEqual(ids);
      expect(codec.decode(ids), text).toBe(decoded);
    }
    for (const [ids, text] of expected.decoded) expect(codec.decode(ids), ids.join()).toBe(text);
  });

  it("decodes token by token to the same text", () => {
    const codec = codecOf(parseModelProto(bytes));
    for (const ids of [...expected.encoded.map(([, ids]) => ids), ...expected.decoded.map(([ids]) => ids)]) {
      const decoder = new IncrementalDecoder((window) => codec.decode(window));
      expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(codec.decode(ids));
    }
  });

  it("is the same after it is written again", () => {
    const model = parseModelProto(bytes);
    const again = parseModelProto(writeModelProto(model));
    expect({ ...again, normalizer: { ...again.normalizer, charsMap: [...again.normalizer.charsMap] } }).toEqual({
      ...model,
      normalizer: { ...model.normalizer, charsMap: [...model.normalizer.charsMap] },
    });
  });
});

describe.each(["spm_llama", "spm_gemma"])("tokenizer.model of %s without tokenizer.json", (name) => {
  it("gives what tokenizer.json gives, special tokens included", async () => {
    const directory = path.join(root, name);
    cpSync(path.join(tokenizers, name), directory, { recursive: true });
    rmSync(path.join(directory, "tokenizer.json"));
    const tokenizer = await AutoTokenizer.fromPretrained(directory);
    const { cases } = JSON.parse(readFileSync(path.join(directory, "expected.json"), "utf8")) as {
      cases: { text: string; ids: number[]; ids_no_special: number[]; decoded: string; decoded_skip_special: string }[];
    };
    for (const row of cases) {
      expect(tokenizer.encode(row.text), row.text).toEqual(row.ids);
      expect(tokenizer.encode(row.text, { addSpecialTokens: false }), row.text).toEqual(row.ids_no_special);
      expect(tokenizer.decode(row.ids), row.text).toBe(row.decoded);
      expect(tokenizer.decode(row.ids, { skipSpecialTokens: true }), row.text).toBe(row.decoded_skip_special);
    }
    expect(tokenizer.eosTokenIds.length).toBe(1);
  });
});

describe("texts that the table of replacements removes whole", () => {
  /** Replaces U+0005 by nothing: a double array of one key, then the replacement. */
  const removesOne = () => {
    const units = new Uint32Array(16);
    units[0] = 8 << 10;
    units[8 ^ 5] = (12 << 10) | (1 << 8) | 5;
    units[8 ^ 5 ^ 12] = 1 << 31;
    const size = new Uint32Array([units.byteLength]);
    return Buffer.concat([Buffer.from(size.buffer), Buffer.from(units.buffer), Buffer.alloc(1)]);
  };

  // As sentencepiece 0.2.2 has it for models with nmt_nfkc, which removes control characters.
  it("keep the dummy prefix, unless spaces are removed at the ends", () => {
    const model = parseModelProto(readFileSync(path.join(folder, "bpe_rules.model")));
    const normalizer = { ...model.normalizer, charsMap: removesOne(), addDummyPrefix: true, escapeWhitespaces: true };
    const kept = codecOf({ ...model, normalizer: { ...normalizer, removeExtraWhitespaces: false } });
    expect(kept.encode("\u0005\u0005", false)).toEqual([model.pieces.indexOf("\u2581")]);
    expect(kept.encode("", false)).toEqual([]);
    const removed = codecOf({ ...model, normalizer: { ...normalizer, removeExtraWhitespaces: true } });
    expect(removed.encode("\u0005\u0005", false)).toEqual([]);
    expect(removed.encode(" ", false)).toEqual([]);
  });
});
