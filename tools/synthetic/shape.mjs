/** Shapes of synthetic models: the options that name them, and their config.json. */
import fs from "node:fs";
import path from "node:path";
import { formatBytes } from "../../dist/units.js";
import { readOptions, refuse } from "../options.mjs";

export const dtypes = {
  bf16: { name: "BF16", torch: "bfloat16", bytes: 2 },
  f16: { name: "F16", torch: "float16", bytes: 2 },
  f32: { name: "F32", torch: "float32", bytes: 4 },
};
export const families = {
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

/** config.json as transformers would write it. */
export function configOf(shape, familyName, dtype) {
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
    max_position_embeddings: shape.context,
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

const text = (value) => ({ type: "string", default: value });
const shapeOptions = {
  family: text("llama"),
  hidden: text("4096"),
  intermediate: text("14336"),
  heads: text("32"),
  "kv-heads": text("8"),
  "head-dim": { type: "string" },
  layers: text("12"),
  vocab: text("32000"),
  context: text("8192"),
  dtype: text("bf16"),
  seed: text("1"),
  experts: text("8"),
  "experts-per-token": text("2"),
  tied: { type: "boolean", default: false },
};

/** The command line: one directory, the shape, and what else `options` names (as `parseArgs` takes them). */
export function readShape(options) {
  const { values, positionals } = readOptions({ allowPositionals: true, options: { ...shapeOptions, ...options } });
  const integer = (name) => {
    const value = Number(values[name]);
    if (!Number.isSafeInteger(value) || value < 1) refuse(`--${name} must be a positive integer, not ${values[name]}`);
    return value;
  };
  if (positionals.length !== 1) refuse("name one directory to write");
  if (!Object.hasOwn(families, values.family)) refuse(`--family is one of ${Object.keys(families).join(", ")}`);
  if (!Object.hasOwn(dtypes, values.dtype)) refuse(`--dtype is one of ${Object.keys(dtypes).join(", ")}`);
  const shape = {
    hidden: integer("hidden"),
    intermediate: integer("intermediate"),
    heads: integer("heads"),
    kvHeads: integer("kv-heads"),
    layers: integer("layers"),
    vocab: integer("vocab"),
    context: integer("context"),
    tied: values.tied,
    experts: integer("experts"),
    expertsPerToken: integer("experts-per-token"),
  };
  shape.headDim = values["head-dim"] ? integer("head-dim") : Math.floor(shape.hidden / shape.heads);
  if (shape.heads % shape.kvHeads !== 0) refuse("--heads must be a multiple of --kv-heads");
  const { family, dtype } = values;
  return { directory: path.resolve(positionals[0]), shape, family, dtype, seed: integer("seed"), values };
}

/** Makes the directory, which must be empty and have room for `bytes`. */
export function claimDirectory(directory, bytes) {
  fs.mkdirSync(directory, { recursive: true });
  if (fs.readdirSync(directory).length > 0) refuse(`${directory} is not empty; name a new directory`);
  const { bavail, bsize } = fs.statfsSync(directory);
  if (bavail * bsize >= bytes + (64 << 20)) return;
  refuse(`${directory} has ${formatBytes(bavail * bsize)} free, but ${formatBytes(bytes)} are needed`);
}
