import { readActivation } from "../dense-decoder.js";
import type { ModelFamily } from "../family.js";
import { readGemmaDecoder } from "../gemma-decoder.js";

export const gemma: ModelFamily = {
  name: "gemma",
  modelTypes: ["gemma"],
  spec(config) {
    const activation = readActivation(config, "hidden_act", "gelu_pytorch_tanh");
    return readGemmaDecoder(config, {
      maxPositionEmbeddings: 8192,
      kvHeads: 16,
      // The first configs say gelu, and the models were trained with its approximation.
      activation: activation.name === "gelu" ? { name: "geluTanh" } : activation,
    });
  },
  example: {
    architectures: ["GemmaForCausalLM"],
    model_type: "gemma",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 52,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    head_dim: 14,
    hidden_act: "gelu",
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
  },
};
