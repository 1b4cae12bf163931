import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { TokenizerLike } from "../../dist/engine/contract.js";
import { graphemes } from "../../dist/tokenizer/graphemes.js";
import { IncrementalDecoder } from "../../dist/tokenizer/incremental-decoder.js";
import { cleanUpSpaces, SpaceCleaner } from "../../dist/tokenizer/space-cleaner.js";
import { AutoTokenizer } from "../../dist/tokenizer/tokenizer.js";
import { generator } from "../helpers/checkpoint.js";

interface Expected {
  vocab_size: number;
  cases: { text: string; ids: number[]; ids_no_special: number[]; decoded: string; decoded_skip_special: string }[];
}

const fixtures = path.resolve(import.meta.dirname, "../fixtures/tokenizers");
const names = readdirSync(fixtures, { withFileTypes: true }).filter((entry) => entry.isDirectory());
const root = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

function expectedOf(name: string): Expected {
  return JSON.parse(readFileSync(path.join(fixtures, name, "expected.json"), "utf8")) as Expected;
}

function decodePieces(
  tokenizer: TokenizerLike,
  ids: readonly number[],
  options?: { skipSpecialTokens?: boolean },
): string[] {
  const decoder = tokenizer.createDecoder(options);
  return [...ids.map((id) => decoder.push(id)), decoder.flush()];
}

describe.each(names.map((entry) => entry.name))("%s", (name) => {
  const expected = expectedOf(name);
  const load = () => AutoTokenizer.fromPretrained(path.join(fixtures, name));

  it("encodes and decodes as the Rust library", async () => {
    const tokenizer = await load();
    expect(expected.cases.length).toBeGreaterThan(40);
    for (const row of expected.cases) {
      expect(tokenizer.encode(row.text), row.text).toEqual(row.ids);
      expect(tokenizer.encode(row.text, { addSpecialTokens: false }), row.text).toEqual(row.ids_no_special);
      expect(tokenizer.decode(row.ids), row.text).toBe(row.decoded);
      expect(tokenizer.decode(row.ids, { skipSpecialTokens: true }), row.text).toBe(row.decoded_skip_special);
    }
  });

  it("decodes texts piece by piece without ever giving half a character", async () => {
    const tokenizer = await load();
    for (const row of expected.cases) {
      const pieces = decodePieces(tokenizer, row.ids, { skipSpecialTokens: true });
      expect(pieces.join("")).toBe(row.decoded_skip_special);
      const broken = /[\p{Surrogate}\uFFFD]/u;
      if (!broken.test(row.text)) expect(pieces.filter((piece) => broken.test(piece))).toEqual([]);
    }
  });

  it("decodes any ids piece by piece to the same text as at once", async () => {
    const tokenizer = await load();
    const random = generator(7);
    // Bytes of incomplete characters on their own, so that valid and invalid sequences of all lengths occur.
    const fragments = [...Array(expected.vocab_size).keys()].filter((id) => tokenizer.decode([id]) === "\uFFFD");
    expect(fragments.length).toBeGreaterThan(100);
    for (let i = 0; i < 600; i++) {
      const length = 1 + (random() % 70);
      const ids = Array.from({ length }, () =>
        i % 2 ? random() % (expected.vocab_size + 5) : (fragments[random() % fragments.length] as number),
      );
      for (const skipSpecialTokens of [false, true]) {
        const pieces = decodePieces(tokenizer, ids, { skipSpecialTokens });
        expect(pieces.join(""), ids.join()).toBe(tokenizer.decode(ids, { skipSpecialTokens }));
      }
    }
  });

  it("has a chat template and an end-of-sequence token, and knows what is not a token", async () => {
    const tokenizer: TokenizerLike = await load();
    expect(tokenizer.hasChatTemplate).toBe(true);
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hi there" }])).toContain("hi there");
    expect(tokenizer.eosTokenIds.length).toBe(1);
    expect(tokenizer.decode(tokenizer.eosTokenIds, { skipSpecialTokens: true })).toBe("");
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([10 ** 6, -1, 0.5, Number.NaN])).toBe("");
    expect(tokenizer.encode("", { addSpecialTokens: false })).toEqual([]);
  });
});

describe("incremental decoding", () => {
  it("looks at a bounded number of tokens, even if characters never end", () => {
    const bytes = (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids));
    let longest = 0;
    const decoder = new IncrementalDecoder((ids) => {
      longest = Math.max(longest, ids.length);
      return bytes(ids);
    });
    const ids = Array.from({ length: 5000 }, (_, i) => (i % 3 === 0 ? 0xff : 0xf0));
    const text = ids.map((id) => decoder.push(id)).join("") + decoder.flush();
    expect(text).toBe(bytes(ids));
    expect(longest).toBeLessThanOrEqual(32);
  });

  it("returns replacement characters that the text itself holds once each", () => {
    // As sentencepiece decodes: one U+FFFD for each byte until the three of them are a character.
    const decode = (ids: readonly number[]) =>
      Buffer.from(ids)
        .toString("latin1")
        .replaceAll("\u00EF\u00BF\u00BD", "\uFFFD")
        .replace(/[\u0080-\u00FF]/g, "\uFFFD");
    const ids = [...Buffer.from(`a${"\uFFFD".repeat(40)}b\uFFFDc`)];
    const decoder = new IncrementalDecoder(decode);
    expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(decode(ids));
  });

  it("keeps back half of a surrogate pair", () => {
    const halves = ["\uD83D", "\uDE00", "!"];
    const decoder = new IncrementalDecoder((ids) => ids.map((id) => halves[id]).join(""));
    expect([0, 1, 2].map((id) => decoder.push(id))).toEqual(["", "\u{1F600}", "!"]);
    expect(decoder.push(0) + decoder.flush()).toBe("\uD83D");
  });
});

let count = 0;
/** A copy of a fixture with some files changed: a JSON value, raw text, or undefined to remove the file. */
function variant(files: Record<string, unknown>): string {
  const directory = path.join(root, String(count++));
  mkdirSync(directory);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    cpSync(path.join(fixtures, "bytelevel_llama3", name), path.join(directory, name));
  }
  for (const [name, value] of Object.entries(files)) {
    if (value === undefined) rmSync(path.join(directory, name));
    else writeFileSync(path.join(directory, name), typeof value === "string" ? value : JSON.stringify(value));
  }
  return directory;
}

function tokenizerJson(): Record<string, unknown> & { model: Record<string, unknown>; added_tokens: object[] } {
  return JSON.parse(readFileSync(path.join(fixtures, "bytelevel_llama3", "tokenizer.json"), "utf8"));
}

describe("end-of-sequence tokens", () => {
  const eosOf = async (files: Record<string, unknown>) =>
    (await AutoTokenizer.fromPretrained(variant(files))).eosTokenIds;

  it("come from generation_config.json or else config.json, and from the tokenizer", async () => {
    expect(await eosOf({})).toEqual([483]);
    expect(await eosOf({ "generation_config.json": { eos_token_id: 7 } })).toEqual([7, 483]);
    expect(await eosOf({ "generation_config.json": { eos_token_id: [483, 9] } })).toEqual([483, 9]);
    expect(await eosOf({ "config.json": { eos_token_id: 3 } })).toEqual([3, 483]);
    expect(await eosOf({ "generation_config.json": {}, "config.json": { eos_token_id: 3 } })).toEqual([3, 483]);
    expect(await eosOf({ "tokenizer_config.json": { eos_token: { content: "<|end_header_id|>" } } })).toEqual([482]);
    expect(await eosOf({ "tokenizer_config.json": undefined })).toEqual([]);
  });

  it.each(["2", -1, 1.5, 2 ** 53, [1, "2"], {}, true])("that are %j are refused", async (value) => {
    await expect(eosOf({ "generation_config.json": { eos_token_id: value } })).rejects.toMatchObject({
      code: "CONFIG_INVALID",
    });
  });
});

describe("special tokens", () => {
  it("are left out on request where only tokenizer_config.json names them", async () => {
    const json = tokenizerJson();
    json.added_tokens = json.added_tokens.map((token) => ({ ...token, special: false }));
    const tokenizer = await AutoTokenizer.fromPretrained(variant({ "tokenizer.json": json }));
    expect(tokenizer.decode([480, 481, 483], { skipSpecialTokens: true })).toBe("<|start_header_id|>");
  });
});

describe("long texts without spaces", () => {
  // Quadratic time would take minutes.
  it.each(["bytelevel_llama3", "spm_llama"])(
    "%s: 200 000 characters encode, and decode to themselves",
    async (name) => {
      const tokenizer = await AutoTokenizer.fromPretrained(path.join(fixtures, name));
      const text = "thequickbrownfox".repeat(12_500);
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      expect(tokenizer.decode(ids)).toBe(text);
      const part = tokenizer.encode(text.slice(0, 1600), { addSpecialTokens: false });
      expect(ids.slice(0, part.length - 20)).toEqual(part.slice(0, -20));
    },
  );
});

describe("pre-tokenizers", () => {
  /** The words into which a text is cut; its parts are the vocabulary. */
  const wordsOf = async (preTokenizer: object, text: string): Promise<string[]> => {
    const parts = new Set(["[unknown]"]);
    for (let start = 0; start < text.length; start++) {
      for (let end = start + 1; end <= text.length; end++) parts.add(text.slice(start, end));
    }
    const vocab = Object.fromEntries([...parts].map((part, id) => [part, id]));
    const model = { type: "WordPiece", unk_token: "[unknown]", continuing_subword_prefix: "[more]", vocab };
    const others = { added_tokens: [], normalizer: null, post_processor: null, decoder: null };
    const file = { ...others, pre_tokenizer: preTokenizer, model };
    const tokenizer = await AutoTokenizer.fromPretrained(variant({ "tokenizer.json": file }));
    return tokenizer.encode(text).map((id) => tokenizer.decode([id]));
  };

  // All as the Rust library has them. U+FEFF is no white space, U+0085 is.
  it("GPT-2 words end at Unicode's white space", async () => {
    const count = async (text: string) => (await wordsOf({ type: "ByteLevel", add_prefix_space: false }, text)).length;
    expect(await count("a   \ufeff b")).toBe(4);
    expect(await count("a!\u0085b")).toBe(4);
  });

  it("digits are all numeric characters", async () => {
    const digits = (individual: boolean) => ({ type: "Digits", individual_digits: individual });
    expect(await wordsOf(digits(true), "m² ½12")).toEqual(["m", "²", " ", "½", "1", "2"]);
    expect(await wordsOf(digits(false), "m² ½12")).toEqual(["m", "²", " ", "½12"]);
  });

  it("words and white space are those of Unicode", async () => {
    const text = "Straße, né\u0301e\u0085 \ufeff!";
    expect(await wordsOf({ type: "Whitespace" }, text)).toEqual(["Straße", ",", "né\u0301e", "\ufeff!"]);
    expect(await wordsOf({ type: "WhitespaceSplit" }, text)).toEqual(["Straße,", "né\u0301e", "\ufeff!"]);
  });

  it.each([
    ["Removed", ["a", "b", "c"], [",", " ", ";", "."]],
    ["Isolated", ["a", ",", " ", "b", ";", "c", "."], ["a", ",", " ", "b", ";", "c", "."]],
    ["Contiguous", ["a", ", ", "b", ";", "c", "."], ["a", ", ", "b", ";", "c", "."]],
    ["MergedWithPrevious", ["a,", " ", "b;", "c."], ["a", ",", " b", ";c", "."]],
    ["MergedWithNext", ["a", ",", " b", ";c", "."], ["a,", " ", "b;", "c."]],
  ])("separators are %s, and what lies between them if inverted", async (behavior, words, inverted) => {
    const split = { type: "Split", pattern: { Regex: "[,; .]" }, behavior };
    expect(await wordsOf({ ...split, invert: false }, "a, b;c.")).toEqual(words);
    expect(await wordsOf({ ...split, invert: true }, "a, b;c.")).toEqual(inverted);
  });
});

describe("grapheme clusters", () => {
  it("are those of Intl.Segmenter", () => {
    const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });
    const parts = [
      ..."ae\u0301\r\n \u0915\u094D\u0937\u200D\u{1F469}\u{1F3FD}\u{1F1E9}\u{1F1EA}\uAC00\u1100\u1161\u0600\u0D4E今①\uFE0F",
    ];
    const random = generator(11);
    for (let i = 0; i < 5000; i++) {
      const text = Array.from({ length: 1 + (random() % 8) }, () => parts[random() % parts.length]).join("");
      expect(graphemes(text), text).toEqual(Array.from(segmenter.segment(text), ({ segment }) => segment));
    }
    expect(graphemes("ab".repeat(200_000)).length).toBe(400_000);
  });
});

describe("spaces before punctuation", () => {
  it("are removed as transformers does", () => {
    expect(cleanUpSpaces("a , b . c ? d ! I do n't , I 'm it 's we 've they 're o ' clock")).toBe(
      "a, b. c? d! I don't, I'm it's we've they're o'clock",
    );
    expect(cleanUpSpaces("a  . b '' c")).toBe("a . b '' c");
  });

  it("are removed piece by piece to the same text", () => {
    const random = generator(5);
    const parts = [..." .?!,'ntmsverab", "  ", " n't", " ' ", "'s"];
    for (let i = 0; i < 3000; i++) {
      const pieces = Array.from({ length: random() % 12 }, () => parts[random() % parts.length] ?? "");
      const cleaner = new SpaceCleaner();
      const cleaned = pieces.map((piece) => cleaner.push(piece)).join("") + cleaner.flush();
      expect(cleaned, JSON.stringify(pieces)).toBe(cleanUpSpaces(pieces.join("")));
    }
  });

  it("are removed for words and Unigram where the configuration says so, and never for byte pairs", async () => {
    const config = { "tokenizer_config.json": { clean_up_tokenization_spaces: true } };
    const words = {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "Whitespace" },
      post_processor: null,
      decoder: { type: "WordPiece", prefix: "##", cleanup: false },
      model: {
        type: "WordPiece",
        unk_token: "u",
        continuing_subword_prefix: "##",
        vocab: { u: 0, well: 1, ",": 2, wel: 3, "##come": 4, "!": 5 },
      },
    };
    const tokenizer = await AutoTokenizer.fromPretrained(variant({ ...config, "tokenizer.json": words }));
    const ids = tokenizer.encode("well , welcome !");
    expect(ids).toEqual([1, 2, 3, 4, 5]);
    expect(tokenizer.decode(ids)).toBe("well, welcome!");
    expect(decodePieces(tokenizer, ids).join("")).toBe("well, welcome!");
    const pairs = await AutoTokenizer.fromPretrained(variant(config));
    expect(pairs.decode(pairs.encode("well , come"), { skipSpecialTokens: true })).toBe("well , come");
  });
});

describe("bad tokenizer files", () => {
  const failure = (directory: string) =>
    AutoTokenizer.fromPretrained(directory).then(
      () => ({ code: "none", message: "", remedy: "" }),
      (error) => error,
    );

  it("says what to do where there is no tokenizer", async () => {
    const none = await failure(variant({ "tokenizer.json": undefined }));
    expect(none).toMatchObject({ code: "TOKENIZER_MISSING" });
    expect(none.message).toContain("token ids");
    expect(none.message).toContain("tokenizer.model");
    const pieces = await failure(variant({ "tokenizer.json": undefined, "tokenizer.model": "x" }));
    expect(pieces).toMatchObject({ code: "TOKENIZER_INVALID" });
    expect(pieces.message).toContain("tokenizer.model");
    expect(await failure(path.join(root, "nowhere"))).toMatchObject({ code: "TOKENIZER_MISSING" });
  });

  it.each([
    ["not JSON", "{", "JSON"],
    ["a list", "[]", "object"],
    ["nested too deeply", `{"model":${"[".repeat(200)}${"]".repeat(200)}}`, "deep"],
    ["of 100 MB of nested arrays", `{"model":${"[".repeat(1e8)}`, "deep"],
    ["without a model", {}, "model"],
    ["a model of an unknown type", { ...tokenizerJson(), model: { type: "Magic", vocab: {} } }, '"Magic"'],
    [
      "merges of the wrong kind",
      { ...tokenizerJson(), model: { type: "BPE", vocab: {}, merges: 4 } },
      "cannot be used",
    ],
    ["without a decoder", { ...tokenizerJson(), decoder: undefined }, "decoder"],
    [
      "a token id past all bounds",
      { ...tokenizerJson(), added_tokens: [{ id: 2 ** 40, content: "x" }] },
      "token whose id",
    ],
    ["a negative id", { ...tokenizerJson(), model: { type: "BPE", vocab: { a: -1 }, merges: [] } }, "token whose id"],
    ["a token that is null", { ...tokenizerJson(), added_tokens: [null] }, "token whose id"],
    ["Unigram without scores", { ...tokenizerJson(), model: { type: "Unigram", vocab: ["a"], unk_id: 0 } }, "score"],
  ])("%s", async (_, value, words) => {
    const error = await failure(variant({ "tokenizer.json": value }));
    expect(error).toMatchObject({ code: "TOKENIZER_INVALID" });
    expect(error.message).toContain(words);
    expect(error.message).toContain("tokenizer.json");
  });

  it("refuses what is too large unread, and links that lead out", async () => {
    const large = variant({});
    truncateSync(path.join(large, "tokenizer.json"), 2 ** 28);
    expect(await failure(large)).toMatchObject({ code: "TOKENIZER_INVALID" });
    const linked = variant({ "tokenizer.json": undefined });
    symlinkSync(path.join(fixtures, "spm_llama", "tokenizer.json"), path.join(linked, "tokenizer.json"));
    expect(await failure(linked)).toMatchObject({ code: "UNSAFE_PATH" });
  });

  it("refuses a damaged tokenizer_config.json, and works without one", async () => {
    expect(await failure(variant({ "tokenizer_config.json": "{" }))).toMatchObject({ code: "TOKENIZER_INVALID" });
    const tokenizer = await AutoTokenizer.fromPretrained(variant({ "tokenizer_config.json": undefined }));
    expect(tokenizer.hasChatTemplate).toBe(false);
    expect(() => tokenizer.applyChatTemplate([{ role: "user", content: "x" }])).toThrow(/without a chat template/);
    expect(tokenizer.decode(tokenizer.encode("plain text , kept"), { skipSpecialTokens: true })).toBe(
      "plain text , kept",
    );
  });

  it("refuses to encode what is not text", async () => {
    const tokenizer = await AutoTokenizer.fromPretrained(variant({}));
    expect(() => tokenizer.encode(5 as unknown as string)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });
});
