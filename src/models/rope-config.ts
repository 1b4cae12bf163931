import type { RopeSpec } from "./architecture.js";
import { type ConfigReader, LIMITS } from "./config.js";

const DEFAULT_THETA = 10_000;
const SUPPORTED_TYPES = "Supported rope types: default, linear, dynamic, llama3, yarn, longrope.";

export interface RotatedHeads {
  headDim: number;
  maxPositionEmbeddings: number;
  /** The part of each head that rotates when the config does not say; undefined: heads rotate whole. */
  partialRotaryFactor?: number | undefined;
  /** `rope_theta` when the config does not say. Default 10,000. */
  theta?: number | undefined;
  /** `original_max_position_embeddings` when the config does not say. Default: `maxPositionEmbeddings`. */
  originalMaxPositionEmbeddings?: number | undefined;
}

/**
 * The rotary embedding that a config asks for, in either spelling: `rope_theta` beside `rope_scaling` (its kind under
 * `rope_type` or `type`), or both inside `rope_parameters`. As in transformers, a non-empty `rope_scaling` wins.
 */
export function readRope(config: ConfigReader, heads: RotatedHeads): RopeSpec {
  const scaling = config.object("rope_scaling");
  return readRopeParameters(config, scaling && !scaling.isEmpty ? scaling : config.object("rope_parameters"), heads);
}

/** The rotary embedding of one set of parameters; `rope_theta` and `partial_rotary_factor` may stand beside it. */
export function readRopeParameters(
  config: ConfigReader,
  parameters: ConfigReader | undefined,
  heads: RotatedHeads,
): RopeSpec {
  const theta = parameters?.has("rope_theta")
    ? parameters.positive("rope_theta")
    : config.positive("rope_theta", heads.theta ?? DEFAULT_THETA);
  const rotaryDim = readRotaryDim(config, parameters, heads);
  const scaling = parameters && readScaling(config, parameters, { ...heads, rotaryDim, theta });
  return { rotaryDim, theta, scaling: scaling ?? { type: "default" } };
}

function readRotaryDim(
  config: ConfigReader,
  parameters: ConfigReader | undefined,
  { headDim, partialRotaryFactor }: RotatedHeads,
): number {
  const key = "partial_rotary_factor";
  const owner = [parameters, config].find((candidate) => candidate !== undefined && !candidate.isNull(key));
  if (partialRotaryFactor === undefined) {
    if (owner !== undefined && owner.positive(key) !== 1) {
      owner.unsupported(key, "This family rotates whole heads: only 1 is supported.");
    }
    return headDim;
  }
  const factor = owner?.positive(key) ?? partialRotaryFactor;
  const rotaryDim = Math.trunc(headDim * factor);
  if (factor > 1 || rotaryDim < 2 || rotaryDim % 2 !== 0) {
    (owner ?? config).refuse(
      key,
      `such that an even part of each head of ${headDim} rotates; ${factor} makes it ${rotaryDim}`,
    );
  }
  return rotaryDim;
}

function readScaling(
  config: ConfigReader,
  parameters: ConfigReader,
  model: RotatedHeads & { rotaryDim: number; theta: number },
): RopeSpec["scaling"] {
  const key = parameters.has("rope_type") ? "rope_type" : "type";
  switch (parameters.string(key, "default")) {
    case "default":
      if (parameters.has("full_attention") || parameters.has("sliding_attention")) {
        config.unsupported(
          config.has("rope_scaling") ? "rope_scaling" : "rope_parameters",
          "Every layer must have the same rotary embedding.",
        );
      }
      return { type: "default" };
    case "linear":
      return { type: "linear", factor: parameters.positive("factor") };
    case "dynamic":
      // The new base is theta * growth^(dim / (dim - 2)).
      if (model.rotaryDim <= 2) config.refuse("head_dim", "such that more than 2 elements rotate with dynamic scaling");
      return {
        type: "dynamic",
        factor: parameters.positive("factor"),
        originalMaxPositionEmbeddings: model.maxPositionEmbeddings,
      };
    case "llama3": {
      const lowFreqFactor = parameters.positive("low_freq_factor");
      const highFreqFactor = parameters.positive("high_freq_factor");
      if (highFreqFactor <= lowFreqFactor) {
        parameters.refuse("high_freq_factor", `above low_freq_factor, which is ${lowFreqFactor}`);
      }
      return {
        type: "llama3",
        factor: parameters.positive("factor"),
        lowFreqFactor,
        highFreqFactor,
        originalMaxPositionEmbeddings: readOriginalLength(config, parameters, model.maxPositionEmbeddings),
      };
    }
    case "yarn":
      // Early configs of Phi-3 mean LongRoPE, whose factors come in two lists.
      if (parameters.has("short_factor")) return readLongRope(config, parameters, model);
      if (model.theta <= 1) config.refuse("rope_theta", "above 1 with yarn scaling");
      return readYarn(config, parameters, model.maxPositionEmbeddings);
    case "longrope":
    // Phi-3's first configs have the older name.
    case "su":
      return readLongRope(config, parameters, model);
    default:
      return parameters.unsupported(key, SUPPORTED_TYPES);
  }
}

/** YaRN (Peng et al., 2023), with the defaults of transformers. */
function readYarn(config: ConfigReader, parameters: ConfigReader, maxPositionEmbeddings: number): RopeSpec["scaling"] {
  const originalMaxPositionEmbeddings = readOriginalLength(config, parameters, maxPositionEmbeddings);
  const factor =
    parameters.has("factor") && parameters.isNull("factor")
      ? maxPositionEmbeddings / originalMaxPositionEmbeddings
      : parameters.positive("factor");
  return {
    type: "yarn",
    factor,
    betaFast: optionalPositive(parameters, "beta_fast") ?? 32,
    betaSlow: optionalPositive(parameters, "beta_slow") ?? 1,
    originalMaxPositionEmbeddings,
    attentionFactor: yarnAttentionFactor(parameters, factor),
    truncate: parameters.boolean("truncate", true),
  };
}

function yarnAttentionFactor(parameters: ConfigReader, factor: number): number {
  if (!parameters.isNull("attention_factor")) return parameters.positive("attention_factor");
  const mscale = optionalPositive(parameters, "mscale");
  const mscaleAllDim = optionalPositive(parameters, "mscale_all_dim");
  if (mscale === undefined || mscaleAllDim === undefined) return yarnMagnitude(factor, 1);
  return yarnMagnitude(factor, mscale) / yarnMagnitude(factor, mscaleAllDim);
}

/** YaRN's correction of magnitudes for a context stretched by `factor`. */
export function yarnMagnitude(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** LongRoPE (Ding et al., 2024), with the defaults of transformers. */
function readLongRope(
  config: ConfigReader,
  parameters: ConfigReader,
  model: RotatedHeads & { rotaryDim: number },
): RopeSpec["scaling"] {
  const { rotaryDim, maxPositionEmbeddings, originalMaxPositionEmbeddings = maxPositionEmbeddings } = model;
  for (const key of ["short_mscale", "long_mscale"]) {
    if (!parameters.isNull(key)) parameters.unsupported(key, "Only attention_factor is supported.");
  }
  const trained = readOriginalLength(config, parameters, originalMaxPositionEmbeddings);
  if (trained === 1) config.refuse("original_max_position_embeddings", "above 1 with longrope scaling");
  const factor = optionalPositive(parameters, "factor") ?? maxPositionEmbeddings / trained;
  const derived = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trained));
  return {
    type: "longrope",
    shortFactor: parameters.positives("short_factor", rotaryDim / 2),
    longFactor: parameters.positives("long_factor", rotaryDim / 2),
    originalMaxPositionEmbeddings: trained,
    attentionFactor: optionalPositive(parameters, "attention_factor") ?? derived,
  };
}

/** transformers reads null and 0 here as "use the default". */
function optionalPositive(parameters: ConfigReader, key: string): number | undefined {
  return parameters.isNull(key) || parameters.raw(key) === 0 ? undefined : parameters.positive(key);
}

/** A value outside the rope parameters wins over one inside them. */
function readOriginalLength(config: ConfigReader, parameters: ConfigReader, fallback: number): number {
  const owner = config.has("original_max_position_embeddings") ? config : parameters;
  return owner.integer("original_max_position_embeddings", 1, LIMITS.positions, fallback);
}
