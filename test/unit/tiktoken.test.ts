import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { GLM4_PATTERN } from "../../dist/tokenizer/original-tokenizers.js";
import { parseTiktokenRanks, TiktokenCodec } from "../../dist/tokenizer/tiktoken.js";
import { AutoTokenizer } from "../../dist/tokenizer/tokenizer.js";

const folder = path.resolve(import.meta.dirname, "../fixtures/qwen_v1");
const expected = JSON.parse(readFileSync(path.join(folder, "expected.json"), "utf8")) as {
  encoded: [text: string, ids: number[], decoded: string][];
  decoded: [ids: number[], text: string][];
};

describe("qwen.tiktoken", () => {
  it("encodes and decodes as tiktoken, at once and token by token", async () => {
    const tokenizer = await AutoTokenizer.fromPretrained(folder);
    expect(expected.encoded.length).toBeGreaterThan(40);
    for (const [text, ids] of expected.encoded) expect(tokenizer.encode(text), text).toEqual(ids);
    for (const [ids, text] of [...expected.encoded.map(([, ids, text]) => [ids, text] as const), ...expected.decoded]) {
      expect(tokenizer.decode(ids)).toBe(text);
      const decoder = tokenizer.createDecoder();
      expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(text);
    }
  });

  it("counts its special tokens on from the ranks, and leaves them out on request", async () => {
    const tokenizer = await AutoTokenizer.fromPretrained(folder);
    expect(tokenizer.encode("<|endoftext|><|im_start|><|im_end|><|extra_0|><|extra_204|>")).toEqual([
      330, 331, 332, 333, 537,
    ]);
    expect(tokenizer.decode([330, 331, 332, 333], { skipSpecialTokens: true })).toBe("");
    expect(tokenizer.eosTokenIds).toEqual([330, 332, 331]);
  });

  it("reads GLM-4's, which is called tokenizer.model and keeps up to three digits together", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "glm4-"));
    cpSync(path.join(folder, "qwen.tiktoken"), path.join(directory, "tokenizer.model"));
    const names = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>"];
    const decoder = Object.fromEntries(names.map((content, i) => [330 + i, { content, special: true }]));
    writeFileSync(path.join(directory, "config.json"), JSON.stringify({ model_type: "chatglm" }));
    writeFileSync(path.join(directory, "tokenizer_config.json"), JSON.stringify({ added_tokens_decoder: decoder }));
    const [glm4, qwen] = await Promise.all([directory, folder].map((path) => AutoTokenizer.fromPretrained(path)));
    rmSync(directory, { recursive: true });
    expect(glm4?.encode("hi<|user|>")).toEqual([331, 332, ...(qwen?.encode("hi") ?? []), 333]);
    expect(glm4?.decode([331, 332, 333], { skipSpecialTokens: true })).toBe("");
    for (const digits of ["2024", "3.14159"]) expect(glm4?.decode(glm4.encode(digits).slice(2))).toBe(digits);
    expect([..."1234567".matchAll(GLM4_PATTERN)].map(([word]) => word)).toEqual(["123", "456", "7"]);
  });

  it.each([
    ["", "no tokens"],
    ["YQ==", "line 1"],
    ["YQ== 0\nYQ== 1", "second time"],
    ["YQ== 0\nYg== 0", "second time"],
    ["YQ== -1", "line 1"],
    ["YQ== 99999999999", "line 1"],
    ["{}", "line 1"],
  ])("refuses %j", (text, words) => {
    expect(() => parseTiktokenRanks(text)).toThrow(words);
  });

  it("refuses a vocabulary without all bytes", () => {
    const settings = { pattern: /./gu, addedTokens: [], prefix: [], normalizesNfc: false };
    expect(() => new TiktokenCodec(new Map([["a", 0]]), settings)).toThrow("byte 0");
  });
});
