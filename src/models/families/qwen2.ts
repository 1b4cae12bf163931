import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { readQwenWindows } from "../qwen-layers.js";

export const qwen2: ModelFamily = {
  name: "qwen2",
  modelTypes: ["qwen2"],
  spec(config) {
    return readDenseDecoder(config, {
      maxPositionEmbeddings: 32_768,
      kvHeads: 32,
      inputBias: true,
      outputBias: false,
      mlpBias: false,
      window: readQwenWindows(config),
    });
  },
  example: {
    architectures: ["Qwen2ForCausalLM"],
    model_type: "qwen2",
    vocab_size: 113,
    hidden_size: 40,
    intermediate_size: 70,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    use_sliding_window: true,
    sliding_window: 6,
    max_window_layers: 1,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
    tie_word_embeddings: true,
  },
};
