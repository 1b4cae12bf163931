#!/usr/bin/env node
/**
 * Writes a big checkpoint with random weights, at the disk's speed, for measurements on models larger than memory:
 * config.json and safetensors shards as transformers would save them, no tokenizer. The same options give the same
 * bytes.
 *
 *   node tools/make-checkpoint.mjs DIRECTORY [--family llama] [--hidden 4096] [--intermediate 14336] [--heads 32]
 *     [--kv-heads 8] [--head-dim N] [--layers 12] [--vocab 32000] [--dtype bf16|f16|f32] [--tied]
 *     [--shard-size 2GB] [--seed 1] [--experts 8] [--experts-per-token 2]
 *
 * The defaults make 5.8 GB. Families: llama, mistral, qwen2, qwen3; mixtral and qwen3_moe with experts, each of them as wide
 * as --intermediate. Weights are N(0, 0.02), norms 1, biases 0.02 like the weights. Every tensor is a window of
 * one pool of 4 Mi random values that starts at a place of its own, so that no two tensors are equal and nothing
 * compresses better than truly random weights within the pool's length.
 */
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { formatBytes, formatDuration, formatRate, parseBytes } from "../dist/units.js";

const poolValues = 1 << 22;
const stagingBytes = 8 << 20;
const pageBytes = 4096;
const standardDeviation = 0.02;
const dtypes = {
  bf16: { name: "BF16", torch: "bfloat16", bytes: 2 },
  f16: { name: "F16", torch: "float16", bytes: 2 },
  f32: { name: "F32", torch: "float32", bytes: 4 },
};
const families = {
  llama: { architecture: "LlamaForCausalLM" },
  mistral: { architecture: "MistralForCausalLM", config: { sliding_window: null } },
  qwen2: { architecture: "Qwen2ForCausalLM", qkvBias: true },
  qwen3: { architecture: "Qwen3ForCausalLM", qkNorm: true },
  mixtral: {
    architecture: "MixtralForCausalLM",
    experts: { router: "block_sparse_moe.gate", prefix: "block_sparse_moe.experts", parts: ["w1", "w3", "w2"] },
  },
  qwen3_moe: {
    architecture: "Qwen3MoeForCausalLM",
    qkNorm: true,
    config: { norm_topk_prob: true },
    experts: { router: "mlp.gate", prefix: "mlp.experts", parts: ["gate_proj", "up_proj", "down_proj"] },
  },
};

/** xoshiro128**, seeded by splitmix32: returns uniform 32-bit integers. */
function randomIntegers(seed) {
  let mix = seed >>> 0;
  const state = Uint32Array.from({ length: 4 }, () => {
    mix = (mix + 0x9e3779b9) >>> 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  });
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const t = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = rotate(state[3], 11);
    return result;
  };
}

/** `poolValues` values of N(0, 0.02), by Box and Muller. */
function gaussianPool(random) {
  const values = new Float32Array(poolValues);
  for (let i = 0; i < poolValues; i += 2) {
    const radius = standardDeviation * Math.sqrt(-2 * Math.log((random() + 1) / 2 ** 32));
    const angle = (2 * Math.PI * random()) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** The values as the bytes of `dtype`, little endian, rounded to nearest. */
function encode(values, dtype) {
  if (dtype === "f32") return Buffer.from(values.buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const output = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    output[i] = dtype === "bf16" ? (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16 : toHalf(values[i]);
  }
  return Buffer.from(output.buffer);
}

/** Bits of float16 for |value| < 65504. */
function toHalf(value) {
  const sign = value < 0 ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** -14) return sign | Math.round(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(magnitude));
  return sign | (((exponent + 15) << 10) + Math.round((magnitude / 2 ** exponent - 1) * 1024));
}

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

function configOf(shape, familyName, dtype) {
  return {
    architectures: [families[familyName].architecture],
    model_type: familyName,
    hidden_size: shape.hidden,
    intermediate_size: shape.intermediate,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.kvHeads,
    head_dim: shape.headDim,
    vocab_size: shape.vocab,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    hidden_act: "silu",
    tie_word_embeddings: shape.tied,
    torch_dtype: dtypes[dtype].torch,
    ...families[familyName].config,
    ...(families[familyName].experts && {
      num_local_experts: shape.experts,
      num_experts_per_tok: shape.expertsPerToken,
      moe_intermediate_size: shape.intermediate,
    }),
  };
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

/**
 * Writes one file past the page cache where the file system allows it: two to five times as fast as through it, and
 * nothing else is pushed out of memory. Only blocks of `stagingBytes` reach the disk, from an aligned place.
 */
class DirectWriter {
  #file;
  #staging;
  #filled = 0;
  #size = 0;

  constructor(name) {
    const flags = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL;
    const memory = Buffer.alloc(stagingBytes + pageBytes);
    this.#file = fs.openSync(name, flags);
    this.#staging = memory.subarray(0, stagingBytes);
    if (fs.constants.O_DIRECT === undefined) return;
    try {
      const direct = fs.openSync(name, fs.constants.O_WRONLY | fs.constants.O_DIRECT);
      const start = alignedStart(direct, memory);
      fs.closeSync(start === undefined ? direct : this.#file);
      if (start === undefined) return;
      this.#file = direct;
      this.#staging = memory.subarray(start, start + stagingBytes);
    } catch (error) {
      if (error.code !== "EINVAL") throw error;
    }
  }

  write(bytes) {
    this.#size += bytes.length;
    for (let done = 0; done < bytes.length; ) {
      const copied = bytes.copy(this.#staging, this.#filled, done);
      done += copied;
      this.#filled += copied;
      if (this.#filled === stagingBytes) this.#flush();
    }
  }

  close() {
    this.#filled = Math.ceil(this.#filled / pageBytes) * pageBytes;
    this.#flush();
    fs.ftruncateSync(this.#file, this.#size);
    fs.fsyncSync(this.#file);
    fs.closeSync(this.#file);
  }

  #flush() {
    for (let done = 0; done < this.#filled; ) {
      done += fs.writeSync(this.#file, this.#staging, done, this.#filled - done);
    }
    this.#filled = 0;
  }
}

/** The first place in `memory` that direct writes accept; JavaScript cannot see addresses, so it is found by trying. */
function alignedStart(file, memory) {
  for (let start = 0; start < pageBytes; start += 16) {
    try {
      fs.writeSync(file, memory, start, pageBytes, 0);
      return start;
    } catch (error) {
      if (error.code !== "EINVAL") throw error;
    }
  }
  return undefined;
}

function writeTensor(writer, [name, shape], dtype, pool, random) {
  let left = byteLength(shape, dtype);
  if (name.includes("norm")) {
    writer.write(encode(new Float32Array(left / dtypes[dtype].bytes).fill(1), dtype));
    return;
  }
  let start = (random() % poolValues) * dtypes[dtype].bytes;
  while (left > 0) {
    const part = pool.subarray(start, Math.min(pool.length, start + left));
    writer.write(part);
    left -= part.length;
    start = 0;
  }
}

function readOptions() {
  const text = (value) => ({ type: "string", default: value });
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      family: text("llama"),
      hidden: text("4096"),
      intermediate: text("14336"),
      heads: text("32"),
      "kv-heads": text("8"),
      "head-dim": { type: "string" },
      layers: text("12"),
      vocab: text("32000"),
      dtype: text("bf16"),
      "shard-size": text("2GB"),
      seed: text("1"),
      experts: text("8"),
      "experts-per-token": text("2"),
      tied: { type: "boolean", default: false },
    },
  });
  const integer = (name) => {
    const value = Number(values[name]);
    if (!Number.isSafeInteger(value) || value < 1)
      throw new Error(`--${name} must be a positive integer, not ${values[name]}.`);
    return value;
  };
  if (positionals.length !== 1) throw new Error("Name one directory to write.");
  if (!Object.hasOwn(families, values.family))
    throw new Error(`--family is one of ${Object.keys(families).join(", ")}.`);
  if (!Object.hasOwn(dtypes, values.dtype)) throw new Error(`--dtype is one of ${Object.keys(dtypes).join(", ")}.`);
  const shape = {
    hidden: integer("hidden"),
    intermediate: integer("intermediate"),
    heads: integer("heads"),
    kvHeads: integer("kv-heads"),
    layers: integer("layers"),
    vocab: integer("vocab"),
    tied: values.tied,
    experts: integer("experts"),
    expertsPerToken: integer("experts-per-token"),
  };
  shape.headDim = values["head-dim"] ? integer("head-dim") : Math.floor(shape.hidden / shape.heads);
  if (shape.heads % shape.kvHeads !== 0) throw new Error("--heads must be a multiple of --kv-heads.");
  return {
    directory: path.resolve(positionals[0]),
    shape,
    family: values.family,
    dtype: values.dtype,
    shardSize: parseBytes(values["shard-size"], "--shard-size"),
    seed: integer("seed"),
  };
}

function main() {
  const { directory, shape, family, dtype, shardSize, seed } = readOptions();
  const tensors = tensorsOf(shape, families[family]);
  const total = tensors.reduce((sum, tensor) => sum + byteLength(tensor[1], dtype), 0);
  fs.mkdirSync(directory, { recursive: true });
  if (fs.readdirSync(directory).length > 0) throw new Error(`${directory} is not empty. Name a new directory.`);
  const { bavail, bsize } = fs.statfsSync(directory);
  if (bavail * bsize < total + (64 << 20)) {
    throw new Error(
      `${directory} has ${formatBytes(bavail * bsize)} free, but the checkpoint takes ${formatBytes(total)}.`,
    );
  }

  const started = process.hrtime.bigint();
  const random = randomIntegers(seed);
  const pool = encode(gaussianPool(random), dtype);
  const shards = shardsOf(tensors, dtype, shardSize);
  const five = (number) => String(number).padStart(5, "0");
  const weightMap = {};
  for (const [index, shard] of shards.entries()) {
    const name =
      shards.length === 1 ? "model.safetensors" : `model-${five(index + 1)}-of-${five(shards.length)}.safetensors`;
    const writer = new DirectWriter(path.join(directory, name));
    writer.write(headerOf(shard, dtype));
    for (const tensor of shard) {
      writeTensor(writer, tensor, dtype, pool, random);
      weightMap[tensor[0]] = name;
    }
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

try {
  main();
} catch (error) {
  console.error(`make-checkpoint: ${error.message}`);
  process.exitCode = error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
}
