import { readFileSync } from "node:fs";
import { LayerstreamError } from "../../dist/errors.js";
import { createTokenizer } from "../../dist/tokenizer/tokenizer.js";

const fixtures = new URL("../../test/fixtures/sentencepiece/", import.meta.url);
const names = ["unigram_rules", "unigram_defined", "bpe_defined", "bpe_rules_unused"];
const models = names.map((name) => readFileSync(new URL(`${name}.model`, fixtures)));

/** Whole models, and their beginnings with the settings that follow the pieces, which are smaller. */
export const seeds = [...models, ...models.map((model) => model.subarray(0, 600)), Buffer.from("YQ== 0\nYg== 1\n")];

export const tokens = [
  "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
  "\x0a\xff\xff\xff\xff\x0f",
  "\x0b\x0c",
  "\x12\x06\x18\x02\x98\x02\x01",
  "\x12\x04\x18\x01\xc0\x01\x01",
  "\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
  "\x0a\x0d\x0a\x06<0x41>\x18\x06",
  "\x0a\x09\x0a\x03\xe2\x96\x81\x18\x04",
];

const settings = {
  identity: { modelType: "", config: {}, tokenizerConfig: {}, generationConfig: {} },
  config: {},
  specialTokens: {},
  addedTokens: [],
  chatTemplate: undefined,
  originalFormat: undefined,
  eosTokenIds: [],
};
const text = `  Hello \uFB01 wor\u00bdld\u3000\u00e9\u0301 ABB <|im_start|> 😀 今天 ${"ab".repeat(200)}`;

export async function run(bytes) {
  const tokenizer = createTokenizer({ name: "tokenizer.model", file: "fuzz", bytes }, settings, "fuzz");
  const ids = tokenizer.encode(text);
  const pieces = tokenizer.createDecoder();
  const decoded = ids.map((id) => pieces.push(id)).join("") + pieces.flush();
  if (decoded !== tokenizer.decode(ids)) throw new Error("pieces differ from the whole");
  if (ids.some((id) => !Number.isInteger(id) || id < 0)) throw new LayerstreamError("INTERNAL", "an id is no id");
}
