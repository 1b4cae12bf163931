import { LIMITS } from "../config.js";
import { readDenseDecoder, readWindow } from "../dense-decoder.js";
import { gatedExperts, readQwenSparseLayers, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";

export const qwen3Moe: ModelFamily = {
  name: "qwen3_moe",
  modelTypes: ["qwen3_moe"],
  spec(config) {
    const attentionBias = config.boolean("attention_bias", false);
    const window = config.boolean("use_sliding_window", false) ? readWindow(config, 4096) : undefined;
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 32_768,
      kvHeads: 4,
      inputBias: attentionBias,
      outputBias: attentionBias,
      mlpBias: false,
      headNorm: "head",
      window: () => window,
    });
    const routing = readRouting(
      config,
      { experts: "num_experts", alias: "num_local_experts", perToken: 8 },
      { normalize: config.boolean("norm_topk_prob", false) },
    );
    const size = config.integer("moe_intermediate_size", 1, LIMITS.intermediate, 768);
    return withExperts(spec, gatedExperts(spec, size, routing), readQwenSparseLayers(config));
  },
  example: {
    architectures: ["Qwen3MoeForCausalLM"],
    model_type: "qwen3_moe",
    vocab_size: 109,
    hidden_size: 36,
    intermediate_size: 50,
    moe_intermediate_size: 18,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 3,
    head_dim: 14,
    num_experts: 6,
    num_experts_per_tok: 2,
    norm_topk_prob: true,
    decoder_sparse_step: 1,
    mlp_only_layers: [1],
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
    tie_word_embeddings: false,
  },
};
