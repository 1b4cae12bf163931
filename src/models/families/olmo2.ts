import { readDenseDecoder } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";

export const olmo2: ModelFamily = {
  name: "olmo2",
  modelTypes: ["olmo2"],
  spec(config) {
    const bias = config.boolean("attention_bias", false);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 2048,
      rmsNormEpsilon: 1e-5,
      inputBias: bias,
      outputBias: bias,
      mlpBias: false,
      headNorm: "width",
    });
    return { ...spec, placement: "post" };
  },
  example: {
    architectures: ["Olmo2ForCausalLM"],
    model_type: "olmo2",
    vocab_size: 107,
    hidden_size: 36,
    intermediate_size: 50,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};
