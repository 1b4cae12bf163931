import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const stablelm: ModelFamily = {
  name: "stablelm",
  modelTypes: ["stablelm"],
  spec(config) {
    if (config.boolean("qk_layernorm", false)) {
      config.unsupported("qk_layernorm", "Only models without norms of each head are supported.");
    }
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 4096,
      kvHeads: 32,
      inputBias: config.boolean("use_qkv_bias", false),
      outputBias: false,
      mlpBias: false,
      partialRotaryFactor: 0.25,
      norm: { kind: "layer", epsilon: config.positive("layer_norm_eps", 1e-5), bias: true },
    });
    return { ...spec, placement: config.boolean("use_parallel_residual", false) ? "parallel" : "pre" };
  },
  example: {
    architectures: ["StableLmForCausalLM"],
    model_type: "stablelm",
    vocab_size: 107,
    hidden_size: 48,
    intermediate_size: 38,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    layer_norm_eps: 1e-5,
    partial_rotary_factor: 0.5,
    use_qkv_bias: true,
    use_parallel_residual: true,
    max_position_embeddings: 128,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};
