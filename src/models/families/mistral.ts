import { readDenseDecoder, readWindow } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const mistral: ModelFamily = {
  name: "mistral",
  modelTypes: ["mistral"],
  spec(config) {
    // transformers takes such a checkpoint for a Ministral, whose layers alternate.
    if (config.has("layer_types")) config.unsupported("layer_types", "Mistral models have one kind of layer.");
    const window = readWindow(config, 4096);
    return readDenseDecoder(config, {
      maxPositionEmbeddings: 131_072,
      kvHeads: 8,
      inputBias: false,
      outputBias: false,
      mlpBias: false,
      window: () => window,
    });
  },
  example: {
    architectures: ["MistralForCausalLM"],
    model_type: "mistral",
    vocab_size: 109,
    hidden_size: 32,
    intermediate_size: 42,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 12,
    sliding_window: 7,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};
