import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { readQwenWindows } from "../qwen-layers.js";

export const qwen3: ModelFamily = {
  name: "qwen3",
  modelTypes: ["qwen3"],
  spec(config) {
    const attentionBias = config.boolean("attention_bias", false);
    return readDenseDecoder(config, {
      maxPositionEmbeddings: 32_768,
      kvHeads: 32,
      headDim: 128,
      inputBias: attentionBias,
      outputBias: attentionBias,
      mlpBias: false,
      headNorm: "head",
      window: readQwenWindows(config),
    });
  },
  example: {
    architectures: ["Qwen3ForCausalLM"],
    model_type: "qwen3",
    vocab_size: 117,
    hidden_size: 32,
    intermediate_size: 44,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 12,
    layer_types: ["full_attention", "full_attention"],
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_parameters: { rope_type: "default", rope_theta: 1000000 },
    tie_word_embeddings: false,
  },
};
