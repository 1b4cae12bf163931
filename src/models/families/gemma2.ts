import { readActivation, readLayerCount } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { readGemmaDecoder, readGemmaWindow, readSoftCap } from "../gemma-decoder.js";
import { readSlidingLayers } from "../layer-types.js";

export const gemma2: ModelFamily = {
  name: "gemma2",
  modelTypes: ["gemma2"],
  spec(config) {
    const sliding = readSlidingLayers(config, readLayerCount(config));
    const softCap = readSoftCap(config, "attn_logit_softcapping", 50);
    const logitCap = readSoftCap(config, "final_logit_softcapping", 30);
    const scale = config.positive("query_pre_attn_scalar", 256) ** -0.5;
    const spec = readGemmaDecoder(config, {
      maxPositionEmbeddings: 8192,
      kvHeads: 4,
      activation: readActivation(config, "hidden_activation", "gelu_pytorch_tanh"),
      attention: softCap === undefined ? { scale } : { scale, softCap },
      window: readGemmaWindow(config, (layer) => sliding?.[layer] ?? layer % 2 === 0),
    });
    return { ...spec, placement: "sandwich", head: logitCap === undefined ? {} : { softCap: logitCap } };
  },
  example: {
    architectures: ["Gemma2ForCausalLM"],
    model_type: "gemma2",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 52,
    num_hidden_layers: 3,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 14,
    query_pre_attn_scalar: 9,
    attn_logit_softcapping: 7,
    final_logit_softcapping: 11,
    sliding_window: 5,
    hidden_activation: "gelu_pytorch_tanh",
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
  },
};
