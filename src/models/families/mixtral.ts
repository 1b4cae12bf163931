import { readDenseDecoder, readWindow } from "../dense-decoder.js";
import { gatedExperts, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";

export const mixtral: ModelFamily = {
  name: "mixtral",
  modelTypes: ["mixtral"],
  spec(config) {
    const window = config.has("sliding_window") ? readWindow(config, 0) : undefined;
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 131_072,
      kvHeads: 8,
      theta: 1_000_000,
      rmsNormEpsilon: 1e-5,
      inputBias: false,
      outputBias: false,
      mlpBias: false,
      window: () => window,
    });
    const routing = readRouting(config, { experts: "num_local_experts", alias: "num_experts", perToken: 2 });
    const size = config.integer("intermediate_size", 1, 2 ** 22);
    return {
      ...withExperts(spec, gatedExperts(spec, size, routing), () => true),
      names: {
        router: "block_sparse_moe.gate",
        expert: "block_sparse_moe.experts.{expert}",
        expertGate: "w1",
        expertUp: "w3",
        expertDown: "w2",
      },
    };
  },
  example: {
    architectures: ["MixtralForCausalLM"],
    model_type: "mixtral",
    vocab_size: 107,
    hidden_size: 36,
    intermediate_size: 30,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    num_key_value_heads: 1,
    num_local_experts: 5,
    num_experts_per_tok: 2,
    max_position_embeddings: 128,
    rms_norm_eps: 1e-5,
    rope_theta: 1000000,
    tie_word_embeddings: false,
  },
};
