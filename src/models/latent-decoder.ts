import { type ConfigReader, LIMITS } from "./config.js";
import { readActivation, readLayerCount } from "./dense-decoder.js";
import type { DecoderSpec, LatentAttention, MlpSpec } from "./family.js";
import { readRope, yarnMagnitude } from "./rope-config.js";

/** Reads the keys that DeepSeek V2 and V3 share; every layer has a dense MLP. */
export function readLatentDecoder(
  config: ConfigReader,
  defaults: { maxPositionEmbeddings: number; interleaved: boolean; mlpBias: boolean },
): DecoderSpec {
  const layerCount = readLayerCount(config);
  const maxPositionEmbeddings = config.integer(
    "max_position_embeddings",
    1,
    LIMITS.positions,
    defaults.maxPositionEmbeddings,
  );
  const ropeDim = config.integer("qk_rope_head_dim", 2, LIMITS.headDim, 64);
  if (ropeDim % 2 !== 0) config.refuse("qk_rope_head_dim", "even");
  const nopeDim = config.integer("qk_nope_head_dim", 1, LIMITS.headDim, 128);
  const attention: LatentAttention = {
    kind: "latent",
    heads: config.integer("num_attention_heads", 1, LIMITS.heads),
    latentRank: config.integer("kv_lora_rank", 1, LIMITS.headDim, 512),
    nopeDim,
    ropeDim,
    valueDim: config.integer("v_head_dim", 1, LIMITS.headDim, 128),
    scale: (nopeDim + ropeDim) ** -0.5 * readYarnScale(config),
    bias: config.boolean("attention_bias", false),
    interleaved: defaults.interleaved,
  };
  const { heads, latentRank, valueDim } = attention;
  if (heads * Math.max(latentRank + ropeDim, nopeDim + ropeDim, nopeDim + valueDim) > LIMITS.intermediate) {
    config.refuse(
      "num_attention_heads",
      `such that its product with the heads' widths is at most ${LIMITS.intermediate}`,
    );
  }
  if (!(config.has("q_lora_rank") && config.isNull("q_lora_rank"))) {
    attention.queryRank = config.integer("q_lora_rank", 1, LIMITS.hidden, 1536);
  }
  const feedForward: MlpSpec = {
    kind: "mlp",
    intermediateSize: config.integer("intermediate_size", 1, LIMITS.intermediate),
    activation: readActivation(config, "hidden_act"),
    gated: true,
    bias: defaults.mlpBias,
  };
  const rope = readRope(config, { headDim: ropeDim, maxPositionEmbeddings });
  return {
    hiddenSize: config.integer("hidden_size", 1, LIMITS.hidden),
    vocabSize: config.integer("vocab_size", 1, LIMITS.vocab),
    maxPositionEmbeddings,
    norm: { kind: "rms", epsilon: config.positive("rms_norm_eps", 1e-6) },
    placement: "pre",
    tied: config.boolean("tie_word_embeddings", false),
    attention,
    layers: Array.from({ length: layerCount }, () => ({ rope, feedForward })),
  };
}

/** Scaled rotary embeddings also scale the scores, by the square of YaRN's magnitude for `mscale_all_dim`. */
function readYarnScale(config: ConfigReader): number {
  const scaling = config.object("rope_scaling");
  const parameters = scaling && !scaling.isEmpty ? scaling : config.object("rope_parameters");
  if (parameters === undefined || parameters.isNull("mscale_all_dim") || parameters.raw("mscale_all_dim") === 0)
    return 1;
  const type = parameters.string(parameters.has("rope_type") ? "rope_type" : "type", "default");
  if (type === "default") return 1;
  return yarnMagnitude(parameters.positive("factor"), parameters.positive("mscale_all_dim")) ** 2;
}
