import { readDenseDecoder, readWindow } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { readRope } from "../rope-config.js";

/** Phi-3 and Phi-4. */
export const phi3: ModelFamily = {
  name: "phi3",
  modelTypes: ["phi3"],
  spec(config) {
    const window = readWindow(config);
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 4096,
      rmsNormEpsilon: 1e-5,
      inputBias: false,
      outputBias: false,
      mlpBias: false,
      partialRotaryFactor: 1,
      rope: (heads) => readRope(config, { ...heads, originalMaxPositionEmbeddings: 4096 }),
      window: () => window,
    });
    return {
      ...spec,
      names: { queryKeyValue: { name: "self_attn.qkv_proj", order: "stacked" }, gateUp: "mlp.gate_up_proj" },
    };
  },
  example: {
    architectures: ["Phi3ForCausalLM"],
    model_type: "phi3",
    vocab_size: 107,
    hidden_size: 48,
    intermediate_size: 38,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    partial_rotary_factor: 0.75,
    sliding_window: 9,
    max_position_embeddings: 96,
    original_max_position_embeddings: 24,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: { type: "longrope", short_factor: [1, 1.1, 1.3], long_factor: [1.5, 2.5, 4] },
    tie_word_embeddings: true,
  },
};
