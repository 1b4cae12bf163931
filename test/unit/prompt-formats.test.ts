import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { AutoTokenizer, type Tokenizer } from "../../dist/tokenizer/tokenizer.js";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const model = path.join(fixtures, "tokenizers/spm_llama/tokenizer.model");
/** Pieces of `model`. */
const PIECES = 620;
const root = mkdtempSync(path.join(tmpdir(), "prompt-formats-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;
/** A checkpoint of the family with a SentencePiece vocabulary and no chat template. */
function load(config: object, files: Record<string, object> = {}): Promise<Tokenizer> {
  const directory = path.join(root, String(count++));
  mkdirSync(directory);
  cpSync(model, path.join(directory, "tokenizer.model"));
  for (const [name, value] of Object.entries({ "config.json": config, ...files })) {
    writeFileSync(path.join(directory, name), JSON.stringify(value));
  }
  return AutoTokenizer.fromPretrained(directory);
}

const talk = [
  { role: "user", content: "hi" },
  { role: "assistant", content: "hello" },
  { role: "user", content: "so" },
];
const withSystem = [{ role: "system", content: "be" }, ...talk];
const idsOf = (tokenizer: Tokenizer, text: string) => tokenizer.encode(text, { addSpecialTokens: false });

describe("ChatGLM2", () => {
  const config = { model_type: "chatglm", transformers_version: "4.27.1" };
  const [gmask, sop] = [PIECES + 1, PIECES + 3];

  it("counts rounds, after [gMASK] and sop", async () => {
    const tokenizer = await load(config);
    const text = tokenizer.applyChatTemplate(talk);
    expect(text).toBe("[gMASK]sop[Round 1]\n\n问：hi\n\n答：hello\n\n[Round 2]\n\n问：so\n\n答：");
    const ids = idsOf(tokenizer, text);
    expect(ids.slice(0, 2)).toEqual([gmask, sop]);
    expect(ids.slice(2)).toEqual(idsOf(tokenizer, text.slice("[gMASK]sop".length)));
    expect(tokenizer.encode("hi")).toEqual([gmask, sop, ...idsOf(tokenizer, "hi")]);
    expect(() => tokenizer.applyChatTemplate(withSystem)).toThrow("Only user and assistant");
  });

  it("does not find its words in texts, and does not know the roles of ChatGLM3", async () => {
    const tokenizer = await load(config);
    for (const text of ["philosophy people sop", "<|user|>"]) {
      expect(Math.max(...idsOf(tokenizer, text))).toBeLessThan(PIECES);
      expect(tokenizer.decode(idsOf(tokenizer, text))).toBe(text);
    }
    expect(tokenizer.decode([gmask, sop])).toBe("[gMASK]sop");
    expect(tokenizer.decode([gmask, sop, ...idsOf(tokenizer, "hi")], { skipSpecialTokens: true })).toBe("hi");
  });
});

describe("ChatGLM3", () => {
  it.each([
    [{ model_type: "chatglm", transformers_version: "4.30.2" }, {}],
    [{ model_type: "chatglm", transformers_version: "4.27.1", _name_or_path: "THUDM/chatglm3-6b" }, {}],
    // As published later: the bare words are listed, and must still not be found in texts.
    [
      { model_type: "chatglm", transformers_version: "4.30.2" },
      { added_tokens_decoder: { [PIECES + 3]: { content: "sop", special: true } } },
    ],
  ])("has a token for each role (%#)", async (config, tokenizerConfig) => {
    const tokenizer = await load(config, { "tokenizer_config.json": tokenizerConfig });
    const text = tokenizer.applyChatTemplate(withSystem);
    expect(text).toBe("[gMASK]sop<|system|>\n be<|user|>\n hi<|assistant|>\n hello<|user|>\n so<|assistant|>");
    const part = (content: string) => [...idsOf(tokenizer, "\n"), ...idsOf(tokenizer, content)];
    const [system, user, assistant] = [PIECES + 5, PIECES + 6, PIECES + 7];
    expect(idsOf(tokenizer, text)).toEqual([
      ...[PIECES + 1, PIECES + 3, system, ...part("be"), user, ...part("hi"), assistant, ...part("hello")],
      ...[user, ...part("so"), assistant],
    ]);
    expect(tokenizer.eosTokenIds).toEqual([PIECES + 6, PIECES + 8]);
    expect(Math.max(...idsOf(tokenizer, "philosophy"))).toBeLessThan(PIECES);
  });
});

describe("Baichuan", () => {
  it("writes the roles as the reserved tokens 195 and 196", async () => {
    const second = await load({ model_type: "baichuan", vocab_size: 125696 }, { "tokenizer_config.json": {} });
    expect(second.applyChatTemplate(withSystem)).toBe(
      "be<reserved_106>hi<reserved_107>hello<reserved_106>so<reserved_107>",
    );
    expect(idsOf(second, second.applyChatTemplate(talk))).toEqual([
      ...[195, ...idsOf(second, "hi"), 196, ...idsOf(second, "hello"), 195, ...idsOf(second, "so"), 196],
    ]);
    const first = await load({ model_type: "baichuan", vocab_size: 64000 });
    expect(first.applyChatTemplate(talk)).toBe("<reserved_102>hi<reserved_103>hello</s><reserved_102>so<reserved_103>");
    expect(idsOf(first, "<reserved_102><reserved_103>")).toEqual([195, 196]);
  });

  it("takes the ids of generation_config.json", async () => {
    const files = { "generation_config.json": { user_token_id: 7, assistant_token_id: 8, eos_token_id: 2 } };
    const tokenizer = await load({ model_type: "baichuan", z_loss_weight: 0 }, files);
    expect(idsOf(tokenizer, "<reserved_106><reserved_107>")).toEqual([7, 8]);
    expect(tokenizer.eosTokenIds).toEqual([2]);
  });
});

describe("InternLM", () => {
  it("names the roles, in both generations", async () => {
    const config = { "tokenizer_config.json": { bos_token: "<s>", eos_token: "</s>" } };
    const first = await load({ model_type: "internlm" }, config);
    expect(first.applyChatTemplate(withSystem)).toBe(
      "<s><|System|>:be\n<|User|>:hi\n<|Bot|>:hello<eoa>\n<|User|>:so\n<|Bot|>:",
    );
    const declared = {
      "tokenizer_config.json": { added_tokens_decoder: { 600: { content: "<|im_end|>", special: true } } },
    };
    const second = await load({ model_type: "internlm2" }, declared);
    expect(second.applyChatTemplate(talk)).toBe(
      "<s><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nso<|im_end|>\n" +
        "<|im_start|>assistant\n",
    );
    expect(idsOf(second, "<s><|im_end|>")).toEqual([1, 600]);
    expect(second.eosTokenIds).toEqual([600]);
  });
});

describe("QWen v1", () => {
  const folder = path.join(fixtures, "qwen_v1");

  it("writes ChatML with a system message", async () => {
    const tokenizer = await AutoTokenizer.fromPretrained(folder);
    const rest =
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nso<|im_end|>\n" +
      "<|im_start|>assistant\n";
    expect(tokenizer.applyChatTemplate(talk)).toBe(
      `<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n${rest}`,
    );
    expect(tokenizer.applyChatTemplate(withSystem)).toBe(`<|im_start|>system\nbe<|im_end|>\n${rest}`);
    expect(idsOf(tokenizer, tokenizer.applyChatTemplate(talk))[0]).toBe(331);
  });

  it("has none for base models", async () => {
    const directory = path.join(root, "raw");
    cpSync(folder, directory, { recursive: true });
    writeFileSync(path.join(directory, "generation_config.json"), JSON.stringify({ chat_format: "raw" }));
    expect((await AutoTokenizer.fromPretrained(directory)).hasChatTemplate).toBe(false);
  });
});

describe("a checkpoint with a template of its own", () => {
  it("keeps it", async () => {
    const config = { "tokenizer_config.json": { chat_template: "own" } };
    const tokenizer = await load({ model_type: "internlm2" }, config);
    expect(tokenizer.applyChatTemplate(talk)).toBe("own");
    expect((await load({ model_type: "llama" })).hasChatTemplate).toBe(false);
  });
});

describe("settings beside tokenizer.model", () => {
  const text = "hi there";

  it("say what is put around a prompt", async () => {
    const plain = await load({});
    const ids = idsOf(plain, text);
    expect(plain.encode(text)).toEqual([1, ...ids]);
    const both = await load({}, { "tokenizer_config.json": { add_bos_token: false, add_eos_token: true } });
    expect(both.encode(text)).toEqual([...ids, 2]);
  });

  it("may come from special_tokens_map.json and added_tokens.json", async () => {
    const tokenizer = await load(
      {},
      {
        "special_tokens_map.json": { eos_token: { content: "<end>" } },
        "added_tokens.json": { "<end>": 650, "<more>": 651 },
      },
    );
    expect(tokenizer.eosTokenIds).toEqual([650]);
    expect(tokenizer.encode("<more><end>")).toEqual([1, 651, 650]);
    expect(tokenizer.decode([651, 650], { skipSpecialTokens: true })).toBe("<more>");
  });

  it("may leave the space away after added tokens", async () => {
    const old = await load({});
    const current = await load({}, { "tokenizer_config.json": { legacy: false } });
    expect(idsOf(old, "hi</s>hi").slice(-idsOf(old, "hi").length)).toEqual(idsOf(old, "hi"));
    expect(idsOf(current, "hi</s>hi")).not.toEqual(idsOf(old, "hi</s>hi"));
    expect(idsOf(current, "hi")).toEqual(idsOf(old, "hi"));
  });

  it.each([
    { added_tokens_decoder: { x: { content: "a" } } },
    { added_tokens_decoder: { "-1": { content: "a" } } },
    { added_tokens_decoder: { 999999999: { content: "a" } } },
    { added_tokens_decoder: { 5: {} } },
  ])("%j is refused", async (config) => {
    await expect(load({}, { "tokenizer_config.json": config })).rejects.toMatchObject({ code: "TOKENIZER_INVALID" });
  });

  it("is used where tokenizer.json cannot be", async () => {
    const tokenizer = await load({}, { "tokenizer.json": { model: { type: "Magic" } } });
    expect(tokenizer.encode(text)).toEqual((await load({})).encode(text));
  });
});
