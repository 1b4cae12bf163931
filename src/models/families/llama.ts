import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const llama: ModelFamily = {
  name: "llama",
  modelTypes: ["llama"],
  spec(config) {
    const attentionBias = config.boolean("attention_bias", false);
    return readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      inputBias: attentionBias,
      outputBias: attentionBias,
      mlpBias: config.boolean("mlp_bias", false),
    });
  },
  example: {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: 103,
    hidden_size: 32,
    intermediate_size: 44,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 10,
    attention_bias: true,
    mlp_bias: true,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};
