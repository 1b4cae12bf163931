import type { RopeSpec } from "../architecture.js";
import { type ConfigReader, LIMITS } from "../config.js";
import { readDenseDecoder, readLayerCount, readWindow } from "../dense-decoder.js";
import { gatedExperts, readRouting, withExperts } from "../expert-layers.js";
import type { ModelFamily } from "../family.js";
import { readSlidingLayers } from "../layer-types.js";
import { type RotatedHeads, readRope, yarnMagnitude } from "../rope-config.js";

export const gptOss: ModelFamily = {
  name: "gpt_oss",
  modelTypes: ["gpt_oss"],
  spec(config) {
    const attentionBias = config.boolean("attention_bias", true);
    const window = readWindow(config, 128);
    const sliding = readSlidingLayers(config, readLayerCount(config));
    const spec = readDenseDecoder(config, {
      maxPositionEmbeddings: 131_072,
      kvHeads: 8,
      headDim: 64,
      theta: 150_000,
      rmsNormEpsilon: 1e-5,
      inputBias: attentionBias,
      outputBias: attentionBias,
      mlpBias: false,
      attention: { sinks: true },
      rope: (heads) => readGptOssRope(config, heads),
      window: (layer) => ((sliding?.[layer] ?? layer % 2 === 0) ? window : undefined),
    });
    const routing = readRouting(config, { experts: "num_local_experts", alias: "num_experts", perToken: 4 });
    const size = config.integer("intermediate_size", 1, LIMITS.intermediate);
    const experts = {
      ...gatedExperts(spec, size, routing),
      // modeling_gpt_oss.py has these two as constants, whatever hidden_act says.
      activation: { name: "clampedSwiglu", alpha: 1.702, limit: 7 },
      routerBias: true,
      bias: true,
    } as const;
    return {
      ...withExperts(spec, experts, () => true),
      names: {
        router: "mlp.router",
        stackedExperts: { gateUp: "mlp.experts.gate_up_proj", down: "mlp.experts.down_proj" },
      },
    };
  },
  example: {
    architectures: ["GptOssForCausalLM"],
    model_type: "gpt_oss",
    vocab_size: 111,
    hidden_size: 36,
    intermediate_size: 22,
    num_hidden_layers: 2,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 10,
    num_local_experts: 5,
    num_experts_per_tok: 3,
    sliding_window: 5,
    layer_types: ["sliding_attention", "full_attention"],
    max_position_embeddings: 256,
    rms_norm_eps: 1e-5,
    rope_theta: 150000,
    rope_scaling: {
      rope_type: "yarn",
      factor: 4,
      beta_fast: 32,
      beta_slow: 1,
      truncate: false,
      original_max_position_embeddings: 64,
    },
    tie_word_embeddings: false,
  },
};

/** The family's default when the config has no rope parameters is not an unscaled embedding. */
function readGptOssRope(config: ConfigReader, heads: RotatedHeads): RopeSpec {
  const rope = readRope(config, heads);
  if (["rope_scaling", "rope_parameters"].some((key) => config.object(key)?.isEmpty === false)) return rope;
  const ramp = { betaFast: 32, betaSlow: 1, truncate: false, originalMaxPositionEmbeddings: 4096 };
  return { ...rope, scaling: { type: "yarn", factor: 32, attentionFactor: yarnMagnitude(32, 1), ...ramp } };
}
