import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const granite: ModelFamily = {
  name: "granite",
  modelTypes: ["granite"],
  spec(config) {
    const bias = config.boolean("attention_bias", false);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      inputBias: bias,
      outputBias: bias,
      mlpBias: config.boolean("mlp_bias", false),
      attention: { scale: config.positive("attention_multiplier", 1) },
    });
    return {
      ...spec,
      embeddingScale: config.positive("embedding_multiplier", 1),
      residualScale: config.positive("residual_multiplier", 1),
      head: { scale: 1 / config.positive("logits_scaling", 1) },
    };
  },
  example: {
    architectures: ["GraniteForCausalLM"],
    model_type: "granite",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    attention_bias: true,
    attention_multiplier: 0.3,
    embedding_multiplier: 4,
    residual_multiplier: 0.7,
    logits_scaling: 2.5,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: true,
  },
};
