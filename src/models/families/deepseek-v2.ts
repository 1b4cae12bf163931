import type { Routing } from "../architecture.js";
import { type ConfigReader, LIMITS } from "../config.js";
import { gatedExperts, readGroups, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";
import { readLatentDecoder } from "../latent-decoder.js";

export const deepseekV2: ModelFamily = {
  name: "deepseek_v2",
  modelTypes: ["deepseek_v2"],
  spec(config) {
    const mlpBias = config.boolean("mlp_bias", false);
    if (mlpBias) config.unsupported("mlp_bias", "Only MLPs without biases are supported.");
    const spec = readLatentDecoder(config, { maxPositionEmbeddings: 2048, interleaved: true, mlpBias });
    const first = config.integer("first_k_dense_replace", 0, LIMITS.layers, 0);
    const step = config.integer("moe_layer_freq", 1, LIMITS.layers, 1);
    if (step !== 1) config.unsupported("moe_layer_freq", "Only 1 is supported.");
    const size = config.integer("moe_intermediate_size", 1, LIMITS.intermediate, 1407);
    const shared = { intermediateSize: size * config.integer("n_shared_experts", 1, 1024, 2), gated: false };
    const moe = { ...gatedExperts(spec, size, readGroupedRouting(config)), shared };
    return { ...withExperts(spec, moe, (layer) => layer >= first), names: { shared: "mlp.shared_experts" } };
  },
  example: {
    architectures: ["DeepseekV2ForCausalLM"],
    model_type: "deepseek_v2",
    vocab_size: 107,
    hidden_size: 36,
    intermediate_size: 50,
    moe_intermediate_size: 14,
    num_hidden_layers: 3,
    num_attention_heads: 3,
    q_lora_rank: 20,
    kv_lora_rank: 18,
    qk_nope_head_dim: 12,
    qk_rope_head_dim: 8,
    v_head_dim: 7,
    first_k_dense_replace: 1,
    n_routed_experts: 8,
    n_shared_experts: 1,
    num_experts_per_tok: 3,
    topk_method: "group_limited_greedy",
    n_group: 4,
    topk_group: 2,
    routed_scaling_factor: 1.5,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    tie_word_embeddings: false,
  },
};

/** norm_topk_prob has no effect: transformers never normalizes these weights. */
function readGroupedRouting(config: ConfigReader): Routing {
  const scale = config.positive("routed_scaling_factor", 1);
  const routing = readRouting(config, { experts: "n_routed_experts" }, { normalize: false, scale });
  const method = config.string("topk_method", "greedy");
  if (method === "greedy") return routing;
  if (method !== "group_limited_greedy") {
    return config.unsupported("topk_method", "Supported: greedy, group_limited_greedy.");
  }
  return readGroups(config, routing);
}
