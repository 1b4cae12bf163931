import type { RopeSpec } from "../architecture.js";
import { type ConfigReader, LIMITS } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { type RotatedHeads, readRope } from "../rope-config.js";

/** QWen v1 in the format of its modeling_qwen.py. */
export const qwen: ModelFamily = {
  name: "qwen",
  modelTypes: ["qwen"],
  architectures: ["QWenLMHeadModel"],
  spec(original) {
    const config = original.spelled({
      rms_norm_eps: "layer_norm_epsilon",
      rope_theta: "rotary_emb_base",
      partial_rotary_factor: "rotary_pct",
      head_dim: "kv_channels",
    });
    const bias = !config.boolean("no_bias", true);
    if (!config.boolean("scale_attn_weights", true)) {
      config.unsupported("scale_attn_weights", "Only true is supported.");
    }
    const doubled = config.integer("intermediate_size", 2, LIMITS.intermediate);
    if (doubled % 2 !== 0) config.refuse("intermediate_size", "even: gate and up have half of it each");
    const logn = config.boolean("use_logn_attn", true);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 8192,
      headDim: 128,
      intermediateSize: doubled / 2,
      activation: { name: "silu" },
      inputBias: true,
      outputBias: bias,
      mlpBias: bias,
      partialRotaryFactor: 1,
      ...(logn ? { attention: { lognLength: readTrainedLength(config) } } : {}),
      rope: (heads) => readQwenRope(config, heads),
    });
    if (spec.attention.heads * config.integer("head_dim", 2, LIMITS.headDim, 128) !== spec.hiddenSize) {
      config.refuse("head_dim", `hidden_size / num_attention_heads`);
    }
    return {
      ...spec,
      tied: false,
      names: {
        embedding: "transformer.wte",
        layer: "transformer.h.{layer}.",
        attentionNorm: "ln_1",
        queryKeyValue: { name: "attn.c_attn", order: "stacked" },
        output: "attn.c_proj",
        feedForwardNorm: "ln_2",
        gate: "mlp.w2",
        up: "mlp.w1",
        down: "mlp.c_proj",
        finalNorm: "transformer.ln_f",
      },
    };
  },
  example: {
    architectures: ["QWenLMHeadModel"],
    model_type: "qwen",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 52,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    kv_channels: 12,
    rotary_pct: 1,
    rotary_emb_base: 10000,
    seq_length: 16,
    use_dynamic_ntk: true,
    use_logn_attn: true,
    no_bias: true,
    layer_norm_epsilon: 1e-6,
    tie_word_embeddings: false,
  },
};

function readTrainedLength(config: ConfigReader): number {
  return config.integer("seq_length", 2, LIMITS.positions);
}

function readQwenRope(config: ConfigReader, heads: RotatedHeads): RopeSpec {
  const rope = readRope(config, heads);
  if (!config.boolean("use_dynamic_ntk", true)) return rope;
  if (rope.rotaryDim <= 2) config.refuse("partial_rotary_factor", "such that more than 2 elements of each head rotate");
  return { ...rope, scaling: { type: "qwenDynamic", trainedLength: readTrainedLength(config) } };
}
