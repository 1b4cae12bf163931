import type { ConfigReader } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import type { DecoderSpec, ModelFamily } from "../family.js";

const EXAMPLE = {
  vocab_size: 109,
  hidden_size: 36,
  intermediate_size: 50,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 8,
  partial_rotary_factor: 0.5,
  attention_bias: true,
  max_position_embeddings: 128,
  rms_norm_eps: 1.5625e-7,
  rope_theta: 10000,
  tie_word_embeddings: false,
};

export const glm: ModelFamily = {
  name: "glm",
  modelTypes: ["glm"],
  spec: readGlm,
  example: { architectures: ["GlmForCausalLM"], model_type: "glm", ...EXAMPLE },
};

export const glm4: ModelFamily = {
  name: "glm4",
  modelTypes: ["glm4"],
  spec(config) {
    const spec = readGlm(config);
    const names = {
      ...spec.names,
      postAttentionNorm: "post_self_attn_layernorm",
      feedForwardNorm: "post_attention_layernorm",
      postFeedForwardNorm: "post_mlp_layernorm",
    };
    return { ...spec, placement: "sandwich", names };
  },
  example: { architectures: ["Glm4ForCausalLM"], model_type: "glm4", ...EXAMPLE },
};

function readGlm(config: ConfigReader): DecoderSpec {
  const spec = readDenseDecoder(config, {
    maxPositionEmbeddings: 131_072,
    kvHeads: 2,
    headDim: 128,
    rmsNormEpsilon: 1.5625e-7,
    inputBias: config.boolean("attention_bias", true),
    outputBias: false,
    mlpBias: false,
    partialRotaryFactor: 0.5,
    attention: { interleaved: true },
  });
  return { ...spec, names: { gateUp: "mlp.gate_up_proj" } };
}
