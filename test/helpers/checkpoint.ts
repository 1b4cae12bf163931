/** Writes small checkpoints, with none of the code under test. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

export interface TensorData {
  dtype: string;
  shape: number[];
  bytes: Buffer;
}

export type Tensors = Map<string, TensorData>;

export interface CheckpointOptions {
  dtype?: "F32" | "F16" | "BF16";
  layers?: number;
  hidden?: number;
  intermediate?: number;
  vocab?: number;
  tied?: boolean;
  shards?: number;
  seed?: number;
  /** All weights 0, which is quicker to make. */
  zeros?: boolean;
  /** Overrides keys of config.json. */
  config?: Record<string, unknown>;
  /** Changes the tensors before they are written. */
  edit?: (tensors: Tensors) => void;
  /** More files: name to content. */
  files?: Record<string, string>;
}

/** A Llama checkpoint in `directory`; returns its tensors. */
export function writeCheckpoint(directory: string, options: CheckpointOptions = {}): Tensors {
  const { shards = 1, files = {} } = options;
  const config = configOf(options);
  const tensors = randomTensors(config, options);
  options.edit?.(tensors);
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, "config.json"), JSON.stringify({ ...config, ...options.config }, null, 2));
  writeFileSync(path.join(directory, "generation_config.json"), '{"eos_token_id": 2}');
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(directory, name), content);
  writeShards(directory, tensors, shards);
  return tensors;
}

function configOf({ layers = 2, hidden = 64, intermediate = 96, vocab = 131, tied = false }: CheckpointOptions) {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: intermediate,
    max_position_embeddings: 128,
    num_attention_heads: 4,
    num_hidden_layers: layers,
    num_key_value_heads: 2,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: tied,
    vocab_size: vocab,
  };
}

function randomTensors(
  config: ReturnType<typeof configOf>,
  { dtype = "BF16", seed = 1, zeros }: CheckpointOptions,
): Tensors {
  const { hidden_size: hidden, intermediate_size: intermediate, vocab_size: vocab } = config;
  const shapes: [string, number[]][] = [["model.embed_tokens.weight", [vocab, hidden]]];
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    shapes.push(
      [`${prefix}input_layernorm.weight`, [hidden]],
      [`${prefix}mlp.down_proj.weight`, [hidden, intermediate]],
      [`${prefix}mlp.gate_proj.weight`, [intermediate, hidden]],
      [`${prefix}mlp.up_proj.weight`, [intermediate, hidden]],
      [`${prefix}post_attention_layernorm.weight`, [hidden]],
      [`${prefix}self_attn.k_proj.weight`, [hidden / 2, hidden]],
      [`${prefix}self_attn.o_proj.weight`, [hidden, hidden]],
      [`${prefix}self_attn.q_proj.weight`, [hidden, hidden]],
      [`${prefix}self_attn.v_proj.weight`, [hidden / 2, hidden]],
    );
  }
  shapes.push(["model.norm.weight", [hidden]]);
  if (!config.tie_word_embeddings) shapes.push(["lm_head.weight", [vocab, hidden]]);
  const random = generator(seed);
  const make = zeros ? zeroTensor : randomTensor;
  return new Map(shapes.map(([name, shape]) => [name, make(dtype, shape, random)]));
}

function zeroTensor(dtype: "F32" | "F16" | "BF16", shape: number[]): TensorData {
  const count = shape.reduce((product, size) => product * size, 1);
  return { dtype, shape, bytes: Buffer.alloc(count * (dtype === "F32" ? 4 : 2)) };
}

/** Random finite values between 1/32 and 1/8 in size. */
export function randomTensor(dtype: "F32" | "F16" | "BF16", shape: number[], random = generator(1)): TensorData {
  const count = shape.reduce((product, size) => product * size, 1);
  const bytes = Buffer.alloc(count * (dtype === "F32" ? 4 : 2));
  for (let i = 0; i < count; i++) {
    if (dtype === "F32") bytes.writeUInt32LE(((random() & 0x80ff_ffff) | 0x3d00_0000) >>> 0, i * 4);
    else if (dtype === "BF16") bytes.writeUInt16LE((random() & 0x80ff) | 0x3d00, i * 2);
    else bytes.writeUInt16LE((random() & 0x87ff) | 0x2800, i * 2);
  }
  return { dtype, shape, bytes };
}

/** mulberry32 */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

function writeShards(directory: string, tensors: Tensors, count: number): void {
  const entries = [...tensors];
  if (count === 1) {
    writeFileSync(path.join(directory, "model.safetensors"), encodeSafetensors(tensors));
    return;
  }
  const weightMap: Record<string, string> = {};
  const each = Math.ceil(entries.length / count);
  for (let shard = 0; shard < count; shard++) {
    const name = `model-${shard + 1}-of-${count}.safetensors`;
    const part = entries.slice(shard * each, (shard + 1) * each);
    for (const [tensor] of part) weightMap[tensor] = name;
    writeFileSync(path.join(directory, name), encodeSafetensors(new Map(part)));
  }
  writeIndex(directory, weightMap);
}

export function writeIndex(directory: string, weightMap: Record<string, unknown>): void {
  const index = JSON.stringify({ metadata: {}, weight_map: weightMap });
  writeFileSync(path.join(directory, "model.safetensors.index.json"), index);
}

export function encodeSafetensors(tensors: Tensors): Buffer {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  return rawSafetensors(JSON.stringify(header), Buffer.concat([...tensors.values()].map(({ bytes }) => bytes)));
}

/** Any text as header, however wrong. `length` overrides the header's length field. */
export function rawSafetensors(header: string, data: Buffer | number, length?: bigint): Buffer {
  const json = Buffer.from(header);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  return Buffer.concat([prefix, json, typeof data === "number" ? Buffer.alloc(data) : data]);
}
