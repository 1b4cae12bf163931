import { LIMITS } from "../config.js";
import { readDenseDecoder } from "../dense-decoder.js";
import { gatedExperts, readQwenSparseLayers, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";
import { readQwenWindows } from "../qwen-layers.js";

export const qwen2Moe: ModelFamily = {
  name: "qwen2_moe",
  modelTypes: ["qwen2_moe"],
  spec(config) {
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 32_768,
      kvHeads: 16,
      inputBias: config.boolean("qkv_bias", true),
      outputBias: false,
      mlpBias: false,
      // As transformers has it: even layers below max_window_layers.
      window: readQwenWindows(config, (layer, last) => layer % 2 === 0 && layer < last),
    });
    const routing = readRouting(
      config,
      { experts: "num_experts", perToken: 4 },
      { normalize: config.boolean("norm_topk_prob", false) },
    );
    const size = config.integer("moe_intermediate_size", 1, LIMITS.intermediate, 1408);
    const shared = {
      intermediateSize: config.integer("shared_expert_intermediate_size", 1, LIMITS.intermediate, 5632),
      gated: true,
    };
    return withExperts(spec, { ...gatedExperts(spec, size, routing), shared }, readQwenSparseLayers(config));
  },
  example: {
    architectures: ["Qwen2MoeForCausalLM"],
    model_type: "qwen2_moe",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    moe_intermediate_size: 18,
    shared_expert_intermediate_size: 26,
    num_hidden_layers: 3,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    num_experts: 7,
    num_experts_per_tok: 3,
    norm_topk_prob: true,
    decoder_sparse_step: 2,
    mlp_only_layers: [],
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};
