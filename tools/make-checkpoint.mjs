#!/usr/bin/env node
/**
 * Writes a big checkpoint with random weights, at the disk's speed, for measurements on models larger than memory:
 * config.json and safetensors shards as transformers would save them, no tokenizer. The same options give the same
 * bytes.
 *
 *   node tools/make-checkpoint.mjs DIRECTORY [--family llama] [--hidden 4096] [--intermediate 14336] [--heads 32]
 *     [--kv-heads 8] [--head-dim N] [--layers 12] [--vocab 32000] [--context 8192] [--dtype bf16|f16|f32] [--tied]
 *     [--shard-size 2GB] [--seed 1] [--experts 8] [--experts-per-token 2]
 *
 * The defaults make 5.8 GB. Families: llama, mistral, qwen2, qwen3; mixtral and qwen3_moe with experts, each of them as wide
 * as --intermediate. Weights are N(0, 0.02), norms 1, biases 0.02 like the weights. Every tensor is a window of
 * one pool of 4 Mi random values that starts at a place of its own, so that no two tensors are equal and nothing
 * compresses better than truly random weights within the pool's length.
 */
import fs from "node:fs";
import path from "node:path";
import { BlockWriter } from "../dist/decompose/block-writer.js";
import { Control } from "../dist/decompose/task.js";
import { native } from "../dist/native/binding.js";
import { formatBytes, formatDuration, formatRate, parseBytes } from "../dist/units.js";
import { encode, gaussianPool, poolValues, randomIntegers } from "./synthetic/random-weights.mjs";
import { claimDirectory, configOf, dtypes, families, readShape } from "./synthetic/shape.mjs";

const stagingBytes = 8 << 20;

/** Names and shapes in the order of the model. */
function tensorsOf(shape, family) {
  const { hidden, intermediate, heads, kvHeads, headDim, layers, vocab, tied } = shape;
  const tensors = [["model.embed_tokens.weight", [vocab, hidden]]];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name, ...dimensions) => tensors.push([`model.layers.${layer}.${name}`, dimensions]);
    add("input_layernorm.weight", hidden);
    for (const [name, rows] of [
      ["q_proj", heads * headDim],
      ["k_proj", kvHeads * headDim],
      ["v_proj", kvHeads * headDim],
    ]) {
      add(`self_attn.${name}.weight`, rows, hidden);
      if (family.qkvBias) add(`self_attn.${name}.bias`, rows);
    }
    if (family.qkNorm) for (const name of ["q_norm", "k_norm"]) add(`self_attn.${name}.weight`, headDim);
    add("self_attn.o_proj.weight", hidden, heads * headDim);
    add("post_attention_layernorm.weight", hidden);
    const addMlp = (prefix, [gate, up, down]) => {
      add(`${prefix}.${gate}.weight`, intermediate, hidden);
      add(`${prefix}.${up}.weight`, intermediate, hidden);
      add(`${prefix}.${down}.weight`, hidden, intermediate);
    };
    if (family.experts) {
      const { router, prefix, parts } = family.experts;
      add(`${router}.weight`, shape.experts, hidden);
      for (let expert = 0; expert < shape.experts; expert++) addMlp(`${prefix}.${expert}`, parts);
    } else {
      addMlp("mlp", ["gate_proj", "up_proj", "down_proj"]);
    }
  }
  tensors.push(["model.norm.weight", [hidden]]);
  if (!tied) tensors.push(["lm_head.weight", [vocab, hidden]]);
  return tensors;
}

const byteLength = (dimensions, dtype) => dimensions.reduce((product, value) => product * value, dtypes[dtype].bytes);

/** Splits as transformers does: a shard is full when the next tensor would not fit. */
function shardsOf(tensors, dtype, limit) {
  const shards = [[]];
  let size = 0;
  for (const tensor of tensors) {
    const bytes = byteLength(tensor[1], dtype);
    if (size > 0 && size + bytes > limit) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1).push(tensor);
    size += bytes;
  }
  return shards;
}

function headerOf(tensors, dtype) {
  const header = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, shape] of tensors) {
    const end = offset + byteLength(shape, dtype);
    header[name] = { dtype: dtypes[dtype].name, shape, data_offsets: [offset, end] };
    offset = end;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded]);
}

function writeTensor(writer, [name, shape], dtype, pool, random) {
  let left = byteLength(shape, dtype);
  if (name.includes("norm")) {
    writer.append(encode(new Float32Array(left / dtypes[dtype].bytes).fill(1), dtype));
    return;
  }
  let start = (random() % poolValues) * dtypes[dtype].bytes;
  while (left > 0) {
    const part = pool.subarray(start, Math.min(pool.length, start + left));
    writer.append(part);
    left -= part.length;
    start = 0;
  }
}

function main() {
  const { directory, shape, family, dtype, seed, values } = readShape({
    "shard-size": { type: "string", default: "2GB" },
  });
  const shardSize = parseBytes(values["shard-size"], "--shard-size");
  const tensors = tensorsOf(shape, families[family]);
  const total = tensors.reduce((sum, tensor) => sum + byteLength(tensor[1], dtype), 0);
  claimDirectory(directory, total);

  const started = process.hrtime.bigint();
  const random = randomIntegers(seed);
  const pool = encode(gaussianPool(random), dtype);
  const shards = shardsOf(tensors, dtype, shardSize);
  const five = (number) => String(number).padStart(5, "0");
  const weightMap = {};
  const transfer = native().createTransfer(2, stagingBytes);
  for (const [index, shard] of shards.entries()) {
    const name =
      shards.length === 1 ? "model.safetensors" : `model-${five(index + 1)}-of-${five(shards.length)}.safetensors`;
    const writer = new BlockWriter(path.join(directory, name), transfer, new Control());
    writer.append(headerOf(shard, dtype));
    for (const tensor of shard) {
      writeTensor(writer, tensor, dtype, pool, random);
      weightMap[tensor[0]] = name;
    }
    writer.finish();
    writer.close();
    console.error(`${name} written`);
  }
  const writeJson = (name, value) =>
    fs.writeFileSync(path.join(directory, name), `${JSON.stringify(value, null, 2)}\n`);
  if (shards.length > 1) {
    writeJson("model.safetensors.index.json", { metadata: { total_size: total }, weight_map: weightMap });
  }
  writeJson("config.json", configOf(shape, family, dtype));
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  console.log(
    `${directory}: ${tensors.length} tensors, ${formatBytes(total)} in ${formatDuration(seconds)} (${formatRate(total / seconds)})`,
  );
}

main();
