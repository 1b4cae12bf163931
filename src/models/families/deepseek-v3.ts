import type { Routing } from "../architecture.js";
import { type ConfigReader, LIMITS } from "../config.js";
import { gatedExperts, readGroups, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";
import { readLatentDecoder } from "../latent-decoder.js";

export const deepseekV3: ModelFamily = {
  name: "deepseek_v3",
  modelTypes: ["deepseek_v3"],
  spec(config) {
    const interleaved = config.boolean("rope_interleave", true);
    const spec = readLatentDecoder(config, { maxPositionEmbeddings: 4096, interleaved, mlpBias: false });
    const first = config.integer("first_k_dense_replace", 0, LIMITS.layers, 3);
    const size = config.integer("moe_intermediate_size", 1, LIMITS.intermediate, 2048);
    const shared = { intermediateSize: size * config.integer("n_shared_experts", 1, 1024, 1), gated: false };
    const moe = { ...gatedExperts(spec, size, readCorrectedRouting(config)), correction: true, shared };
    return { ...withExperts(spec, moe, (layer) => layer >= first), names: { shared: "mlp.shared_experts" } };
  },
  example: {
    architectures: ["DeepseekV3ForCausalLM"],
    model_type: "deepseek_v3",
    vocab_size: 107,
    hidden_size: 36,
    intermediate_size: 50,
    moe_intermediate_size: 14,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    q_lora_rank: null,
    kv_lora_rank: 18,
    qk_nope_head_dim: 12,
    qk_rope_head_dim: 8,
    v_head_dim: 7,
    first_k_dense_replace: 1,
    n_routed_experts: 12,
    n_shared_experts: 2,
    num_experts_per_tok: 4,
    n_group: 3,
    topk_group: 2,
    routed_scaling_factor: 2.5,
    norm_topk_prob: true,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    rope_interleave: false,
    tie_word_embeddings: false,
  },
};

/** Scores are sigmoids; a correction takes part in the choice, and a group's two best experts stand for it. */
function readCorrectedRouting(config: ConfigReader): Routing {
  const routing = readRouting(
    config,
    { experts: "n_routed_experts", perToken: 8 },
    {
      scoring: "sigmoid",
      groupScore: "topTwoSum",
      normalize: config.boolean("norm_topk_prob", true),
      scale: config.positive("routed_scaling_factor", 2.5),
    },
  );
  return readGroups(config, routing, { count: 8, kept: 4 });
}
