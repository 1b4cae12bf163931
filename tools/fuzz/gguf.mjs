import { ggufModel } from "../../dist/checkpoint/gguf/config.js";
import { readGgufFrom } from "../../dist/checkpoint/gguf/gguf-file.js";
import { mapTensors } from "../../dist/checkpoint/gguf/tensor-names.js";
import { readVocabulary } from "../../dist/checkpoint/gguf/vocabulary.js";
import { checkTensors, memoryFile } from "./shared/memory-file.mjs";
import { pick } from "./shared/mutate.mjs";

const number = (value, bytes) => {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return buffer.toString("latin1", 0, bytes);
};
const text = (value) => number(value.length, 8) + value;
const pair = (key, type, value) => text(key) + number(type, 4) + value;
const strings = (list) => number(8, 4) + number(list.length, 8) + list.map(text).join("");

/** A whole model with all that a reader looks at, 8 wide, with 2 layers. */
function model(architecture, experts) {
  const shapes = [
    ["token_embd.weight", [8, 5]],
    ["output_norm.weight", [8]],
  ];
  for (const layer of [0, 1]) {
    for (const name of ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]) {
      const stacked = experts > 0 && name.startsWith("ffn");
      shapes.push([`blk.${layer}.${name}${stacked ? "_exps" : ""}.weight`, stacked ? [8, 8, experts] : [8, 8]]);
    }
    for (const name of ["attn_norm", "ffn_norm"]) shapes.push([`blk.${layer}.${name}.weight`, [8]]);
  }
  const pairs = [
    pair("general.architecture", 8, text(architecture)),
    ...["block_count", "attention.head_count", "attention.head_count_kv"].map((key) =>
      pair(`${architecture}.${key}`, 4, number(2, 4)),
    ),
    ...["embedding_length", "feed_forward_length", "context_length", "attention.sliding_window"].map((key) =>
      pair(`${architecture}.${key}`, 4, number(8, 4)),
    ),
    pair(`${architecture}.expert_count`, 4, number(experts, 4)),
    pair(`${architecture}.expert_used_count`, 4, number(2, 4)),
    pair(`${architecture}.attention.layer_norm_rms_epsilon`, 6, number(0x3727c5ac, 4)),
    pair("tokenizer.ggml.model", 8, text("llama")),
    pair("tokenizer.ggml.tokens", 9, strings(["<unk>", "<s>", "</s>", "a", "b"])),
    pair("tokenizer.ggml.token_type", 9, number(5, 4) + number(5, 8) + number(1, 4).repeat(5)),
  ];
  let offset = 0;
  const infos = shapes.map(([name, sizes]) => {
    const info = text(name) + number(sizes.length, 4) + sizes.map((size) => number(size, 8)).join("");
    const place = number(offset, 8);
    offset += Math.ceil(sizes.reduce((product, size) => product * size, 4) / 32) * 32;
    return info + number(0, 4) + place;
  });
  const header = `GGUF${number(3, 4)}${number(infos.length, 8)}${number(pairs.length, 8)}${pairs.join("")}${infos.join("")}`;
  return Buffer.concat([Buffer.from(header, "latin1"), Buffer.alloc((-header.length & 31) + offset)]);
}

export const seeds = [model("llama", 0), model("llama", 3), model("gemma2", 0), model("qwen3", 0)];

const NUMBERS = [0, 1, 2, 3, 255, 2 ** 31, 2n ** 32n - 1n, 2n ** 53n, 2n ** 60n, 2n ** 63n, -1];
const KEYS = [
  "general.alignment",
  "general.architecture",
  "llama.block_count",
  "llama.attention.head_count",
  "llama.attention.head_count_kv",
  "tokenizer.ggml.tokens",
  "split.count",
  "__proto__",
  "",
];
const TENSORS = ["token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_up.1.weight", "x"];

export const tokens = [
  ...NUMBERS.flatMap((value) => [number(value, 4), number(value, 8)]),
  ...KEYS.map(text),
  ...TENSORS.map(text),
  text("llama"),
  number(8, 4) + text("gemma3"),
  number(9, 4) + number(8, 4) + number(2n ** 40n, 8),
];

/** A file in which nothing but the order of parts is right. */
export function generate(random) {
  const size = () => number(random(3) === 0 ? pick(NUMBERS, random) : random(300), 8);
  const value = () => {
    const type = random(14);
    const array = () => `${number(random(13), 4)}${size()}${text("ab").repeat(random(5))}`;
    if (type === 8) return number(8, 4) + text(pick(["llama", "gemma2", "qwen3", "\xff"], random));
    if (type === 9) return number(9, 4) + array();
    return number(type, 4) + number(random(70), [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8, 4][type]);
  };
  const pairs = Array.from({ length: random(12) }, () => text(pick(KEYS, random)) + value());
  const infos = Array.from({ length: random(6) }, () => {
    const rank = random(5);
    const sizes = Array.from({ length: rank }, size).join("");
    return text(pick(TENSORS, random)) + number(rank, 4) + sizes + number(random(40), 4) + size();
  });
  const counts = number(infos.length, 8) + number(pairs.length, 8);
  return Buffer.from(
    `GGUF${number(2 + random(2), 4)}${counts}${pairs.join("")}${infos.join("")}${"\0".repeat(4096)}`,
    "latin1",
  );
}

export async function run(bytes) {
  const header = await readGgufFrom(memoryFile(bytes));
  checkTensors(header.tensors, bytes.length);
  const { metadata, tensors } = header;
  readVocabulary(metadata);
  const { names } = ggufModel({ metadata, tensors, ropeFactors: undefined });
  checkTensors(new Map(mapTensors(header, names).map((tensor) => [tensor.name, tensor])), bytes.length);
}
