/** GGUF files of every architecture and block type, against transformers on the dequantized weights. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { SUPPORTED_GGML_TYPES } from "../../dist/checkpoint/gguf/ggml-types.js";
import { readGgufHeader } from "../../dist/checkpoint/gguf/gguf-file.js";
import { openLayerStore } from "../../dist/checkpoint/layer-store.js";
import { AutoModel, AutoTokenizer } from "../../dist/index.js";
import { readCase, relativeError } from "../helpers/golden.js";

const fixtures = fileURLToPath(new URL("../fixtures/gguf", import.meta.url));
const tokenizers = fileURLToPath(new URL("../fixtures/tokenizers", import.meta.url));
const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-gguf-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

const cases = readdirSync(fixtures)
  .filter((name) => existsSync(path.join(fixtures, name, "model.gguf")))
  .map((name) => readCase(path.join(fixtures, name)));

it("there are cases of every architecture and type", async () => {
  const headers = await Promise.all(cases.map(({ directory }) => readGgufHeader(path.join(directory, "model.gguf"))));
  const architectures = new Set(headers.map(({ metadata }) => metadata.string("general.architecture")));
  expect([...architectures].sort()).toEqual([
    "gemma",
    "gemma2",
    "gemma3",
    "llama",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
  ]);
  const types = new Set(headers.flatMap(({ tensors }) => [...tensors.values()].map(({ type }) => type.name)));
  expect([...types].sort()).toEqual([...SUPPORTED_GGML_TYPES].sort());
});

describe.each(["cpu", "cpu-discrete"])("on %s", (device) => {
  it.each(cases.map((item) => [item.name, item] as const))("%s", async (_, item) => {
    const file = path.join(item.directory, "model.gguf");
    const model = await AutoModel.fromPretrained(file, { cacheDir, device });
    try {
      const { logits, vocabSize } = await model.forward(item.inputIds);
      expect(relativeError(logits, item.logits)).toBeLessThan(1e-3);
      const options = { maxNewTokens: item.greedy.length, ignoreEos: true };
      expect(await model.generate(item.inputIds, options).tokens()).toEqual(item.greedy);
      const few = await model.forward(item.inputIds.slice(0, 3));
      expect(relativeError(few.logits, item.logits.subarray(0, 3 * vocabSize))).toBeLessThan(1e-3);
      expect((await model.forward(item.inputIds)).logits).toEqual(logits);
    } finally {
      await model.dispose();
    }
  });
});

it("blocks are stored as they are in the file", async () => {
  const directory = path.join(fixtures, "llama_q4_k_m");
  const model = await AutoModel.fromPretrained(path.join(directory, "model.gguf"), { cacheDir });
  await model.dispose();
  const { tensors } = await openLayerStore(model.store);
  const stored = tensors.get("model.layers.0.mlp.down_proj.weight");
  expect(stored?.tensor.format).toBe("q6_k");
  const { offset = 0, byteLength = 0 } = stored?.tensor ?? {};
  const bytes = readFileSync(path.join(model.store, stored?.file.name ?? "")).subarray(offset, offset + byteLength);
  expect(byteLength).toBe(210 * 256);
  expect(readFileSync(path.join(directory, "model.gguf")).includes(bytes)).toBe(true);
});

it("blocks are quantized again only if that is asked for", async () => {
  const item = cases.find(({ name }) => name === "llama_q8_0") as (typeof cases)[number];
  const file = path.join(item.directory, "model.gguf");
  const load = { cacheDir, compression: "8bit" } as const;
  await expect(AutoModel.fromPretrained(file, load)).rejects.toMatchObject({ message: /--requantize/ });
  const model = await AutoModel.fromPretrained(file, { ...load, requantize: true });
  try {
    const { logits } = await model.forward(item.inputIds);
    const error = relativeError(logits, item.logits);
    expect(error).toBeGreaterThan(1e-5);
    expect(error).toBeLessThan(0.05);
  } finally {
    await model.dispose();
  }
});

const withTokenizer = cases.flatMap(({ name, directory }) => {
  const { tokenizer } = JSON.parse(readFileSync(path.join(directory, "expected.json"), "utf8")) as {
    tokenizer?: string;
  };
  return tokenizer === undefined ? [] : [[name, directory, tokenizer] as const];
});

describe("the embedded tokenizer", () => {
  it.each(withTokenizer)("of %s", async (_, directory, source) => {
    const model = await AutoModel.fromPretrained(path.join(directory, "model.gguf"), { cacheDir });
    try {
      const [own, original] = await Promise.all(
        [model.store, path.join(tokenizers, source)].map((place) => AutoTokenizer.fromPretrained(place)),
      );
      const expected = JSON.parse(readFileSync(path.join(tokenizers, source, "expected.json"), "utf8")) as {
        cases: { text: string; ids: number[]; decoded: string }[];
      };
      expect(expected.cases.length).toBeGreaterThan(20);
      for (const { text, ids, decoded } of expected.cases) {
        expect(own?.encode(text), text).toEqual(ids);
        expect(own?.decode(ids), text).toBe(decoded);
      }
      expect(own?.eosTokenIds).toEqual(
        original?.encode(source === "spm_llama" ? "</s>" : "<|im_end|>", { addSpecialTokens: false }),
      );
      const messages = [{ role: "user", content: "Hi" }];
      expect(own?.applyChatTemplate(messages)).toBe("[user] Hi\n");
      expect(await model.generate("Hello", { maxNewTokens: 3, ignoreEos: true }).text()).not.toBe("");
    } finally {
      await model.dispose();
    }
  });
});
