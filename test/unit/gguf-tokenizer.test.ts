import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { GgufVocabulary } from "../../dist/checkpoint/gguf/vocabulary.js";
import { ggufTokenizerFiles } from "../../dist/tokenizer/gguf-tokenizer.js";
import { parseModelProto } from "../../dist/tokenizer/sentencepiece/model-proto.js";
import { AutoTokenizer, type Tokenizer } from "../../dist/tokenizer/tokenizer.js";

const tokenizers = path.resolve(import.meta.dirname, "../fixtures/tokenizers");
const root = mkdtempSync(path.join(tmpdir(), "gguf-tokenizer-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;
function load(vocabulary: GgufVocabulary): Promise<Tokenizer> {
  const directory = path.join(root, String(count++));
  mkdirSync(directory);
  for (const [name, bytes] of ggufTokenizerFiles(vocabulary, "x.gguf"))
    writeFileSync(path.join(directory, name), bytes);
  return AutoTokenizer.fromPretrained(directory);
}

function json(name: string, file: string) {
  return JSON.parse(readFileSync(path.join(tokenizers, name, file), "utf8"));
}

interface Row {
  text: string;
  ids: number[];
  decoded: string;
}

function expectRows(tokenizer: Tokenizer, name: string, bos?: number): void {
  for (const row of json(name, "expected.json").cases as Row[]) {
    expect(tokenizer.encode(row.text), row.text).toEqual(row.ids);
    expect(tokenizer.decode(row.ids), row.text).toBe(row.decoded);
    if (bos !== undefined) expect(row.ids[0]).toBe(bos);
  }
}

describe("a SentencePiece vocabulary", () => {
  const vocabularyOf = (name: string): GgufVocabulary => {
    const model = parseModelProto(readFileSync(path.join(tokenizers, name, "tokenizer.model")));
    return {
      model: "llama",
      tokens: model.pieces,
      scores: model.scores,
      tokenTypes: model.types,
      bosTokenId: model.pieces.indexOf(name === "spm_llama" ? "<s>" : "<bos>"),
      eosTokenId: model.pieces.indexOf(name === "spm_llama" ? "</s>" : "<eos>"),
      addSpacePrefix: name === "spm_llama",
      chatTemplate: "{{ bos_token }}{{ messages[0].content }}",
    };
  };

  it.each(["spm_llama", "spm_gemma"])("of %s gives what the original gives", async (name) => {
    const vocabulary = vocabularyOf(name);
    const tokenizer = await load(vocabulary);
    expectRows(tokenizer, name, vocabulary.bosTokenId);
    expect(tokenizer.eosTokenIds[0]).toBe(vocabulary.eosTokenId);
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hi" }])).toMatch(/^<\w+>hi$/);
  });

  it("ends generations at the ends of turns that it has", async () => {
    const vocabulary = vocabularyOf("spm_llama");
    const tokens = [...vocabulary.tokens, "<|im_end|>", "", "x"];
    const tokenTypes = [...Array.from(vocabulary.tokenTypes ?? []), 3, 1, 4];
    const scores = [...Array.from(vocabulary.scores ?? []), 0, 0, 0];
    const tokenizer = await load({ ...vocabulary, tokens, tokenTypes, scores, addBosToken: false });
    expect(tokenizer.eosTokenIds).toEqual([2, 620]);
    expect(tokenizer.encode("<|im_end|>")).toEqual([620]);
  });

  it.each([
    [{ scores: undefined }, "scores"],
    [{ scores: [1] }, "scores"],
    [{ tokenTypes: [1] }, "token_type"],
    [{ bosTokenId: 10 ** 6 }, "bos token"],
    [{ model: "rwkv" }, "rwkv"],
    [{ model: "gpt2", preTokenizer: "unheard-of" }, "unheard-of"],
    [{ model: "gpt2" }, "merges"],
  ])("%j is refused", (change, words) => {
    const vocabulary = { ...vocabularyOf("spm_llama"), ...change } as GgufVocabulary;
    const refused = expect.objectContaining({ code: "TOKENIZER_INVALID", message: expect.stringContaining(words) });
    expect(() => ggufTokenizerFiles(vocabulary, "x.gguf")).toThrow(refused);
  });
});

describe("a byte-level vocabulary", () => {
  it.each([
    ["bytelevel_llama3", "llama-bpe", true],
    ["bytelevel_qwen", "qwen2", false],
  ])("of %s gives what the original gives", async (name, preTokenizer, addBosToken) => {
    const original = json(name, "tokenizer.json");
    const config = json(name, "tokenizer_config.json");
    const tokens: string[] = [];
    const tokenTypes: number[] = [];
    for (const [token, id] of Object.entries<number>(original.model.vocab)) tokens[id] = token;
    for (const { id, content } of original.added_tokens) tokens[id] = content;
    for (const id of tokens.keys()) tokenTypes[id] = 1;
    for (const { id, special } of original.added_tokens) tokenTypes[id] = special ? 3 : 4;
    const idOf = (token: string | null) => (token === null ? undefined : tokens.indexOf(token));
    const tokenizer = await load({
      model: "gpt2",
      preTokenizer,
      tokens,
      tokenTypes,
      merges: original.model.merges.map((pair: string | string[]) => (Array.isArray(pair) ? pair.join(" ") : pair)),
      bosTokenId: idOf(config.bos_token),
      eosTokenId: idOf(config.eos_token),
      addBosToken,
    });
    expectRows(tokenizer, name);
  });
});
