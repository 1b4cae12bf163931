import type { RopeSpec } from "./architecture.js";
import { type ConfigReader, LIMITS } from "./config.js";
import type { Activation, DecoderSpec, GroupedAttention, LayerSpec, MlpSpec, NormSpec } from "./family.js";
import { type RotatedHeads, readRope } from "./rope-config.js";

/** Where Llama-like families differ. Defaults are those of the family's config class in transformers. */
export interface DenseDecoderTraits {
  /** When `max_position_embeddings` is absent. */
  maxPositionEmbeddings: number;
  /** When `num_key_value_heads` is absent: a number, or as many as query heads. Default "heads". */
  kvHeads?: number | "heads";
  /** When `head_dim` is absent: a number, or hidden_size / num_attention_heads (also for null, the default). */
  headDim?: number | "hidden / heads";
  /** `tie_word_embeddings` when absent. Default false. */
  tied?: boolean;
  inputBias: boolean;
  outputBias: boolean;
  mlpBias: boolean;
  headNorm?: GroupedAttention["headNorm"];
  /** What else is particular about attention. */
  attention?: Partial<
    Pick<GroupedAttention, "scale" | "softCap" | "sinks" | "alibiSlopes" | "lognLength" | "interleaved">
  >;
  /** Default: RMS norms with `rms_norm_eps`. */
  norm?: NormSpec;
  /** `rms_norm_eps` when absent. Default 1e-6. */
  rmsNormEpsilon?: number;
  /** Default: `intermediate_size`. */
  intermediateSize?: number;
  /** Default: `hidden_act`, silu when absent. */
  activation?: Activation;
  /** Default true. */
  gated?: boolean;
  /** The part of each head that rotates when `partial_rotary_factor` is absent. Undefined: heads rotate whole. */
  partialRotaryFactor?: number;
  /** `rope_theta` when absent. Default 10,000. */
  theta?: number;
  /** Rotary embedding of each layer, undefined for none. Default: what `readRope` reads, in all layers. */
  rope?: (heads: RotatedHeads, layer: number) => RopeSpec | undefined;
  /** Window of each layer, undefined for none. Default: none. */
  window?: (layer: number, layerCount: number) => number | undefined;
}

/** Reads the keys that all Llama-like families share. */
export function readDenseDecoder(config: ConfigReader, traits: DenseDecoderTraits): DecoderSpec {
  const layerCount = readLayerCount(config);
  const hiddenSize = config.integer("hidden_size", 1, LIMITS.hidden);
  const { heads, kvHeads, headDim } = readHeads(config, hiddenSize, traits);
  const maxPositionEmbeddings = config.integer(
    "max_position_embeddings",
    1,
    LIMITS.positions,
    traits.maxPositionEmbeddings,
  );
  const { partialRotaryFactor, theta } = traits;
  const rotated = { headDim, maxPositionEmbeddings, partialRotaryFactor, theta };
  const rope = traits.rope ? undefined : readRope(config, rotated);
  const feedForward: MlpSpec = {
    kind: "mlp",
    intermediateSize: traits.intermediateSize ?? config.integer("intermediate_size", 1, LIMITS.intermediate),
    activation: traits.activation ?? readActivation(config, "hidden_act"),
    gated: traits.gated ?? true,
    bias: traits.mlpBias,
  };
  const attention: GroupedAttention = {
    kind: "grouped",
    heads,
    kvHeads,
    headDim,
    scale: headDim ** -0.5,
    inputBias: traits.inputBias,
    outputBias: traits.outputBias,
    ...traits.attention,
  };
  if (traits.headNorm) attention.headNorm = traits.headNorm;
  return {
    hiddenSize,
    vocabSize: config.integer("vocab_size", 1, LIMITS.vocab),
    maxPositionEmbeddings,
    norm: traits.norm ?? { kind: "rms", epsilon: config.positive("rms_norm_eps", traits.rmsNormEpsilon ?? 1e-6) },
    placement: "pre",
    tied: config.boolean("tie_word_embeddings", traits.tied ?? false),
    attention,
    layers: Array.from({ length: layerCount }, (_, layer): LayerSpec => {
      const spec: LayerSpec = { feedForward };
      const layerRope = traits.rope ? traits.rope(rotated, layer) : rope;
      if (layerRope) spec.rope = layerRope;
      const window = traits.window?.(layer, layerCount);
      if (window !== undefined) spec.window = window;
      return spec;
    }),
  };
}

/** Counts and width of heads. @throws CONFIG_INVALID for counts that do not divide, odd widths, and absurd products */
export function readHeads(
  config: ConfigReader,
  hiddenSize: number,
  { kvHeads = "heads", headDim = "hidden / heads" }: Pick<DenseDecoderTraits, "kvHeads" | "headDim">,
): { heads: number; kvHeads: number; headDim: number } {
  const heads = config.integer("num_attention_heads", 1, LIMITS.heads);
  return {
    heads,
    kvHeads: readKvHeads(config, heads, kvHeads),
    headDim: readHeadDim(config, hiddenSize, heads, headDim),
  };
}

export function readLayerCount(config: ConfigReader): number {
  return config.integer("num_hidden_layers", 1, LIMITS.layers);
}

/** A sliding window in tokens; undefined when the key is null, or absent without a fallback. */
export function readWindow(config: ConfigReader, fallback?: number): number | undefined {
  if (config.isNull("sliding_window") && (fallback === undefined || config.has("sliding_window"))) return undefined;
  return config.integer("sliding_window", 1, LIMITS.positions, fallback);
}

function readKvHeads(config: ConfigReader, heads: number, fallback: number | "heads"): number {
  const key = "num_key_value_heads";
  if (config.has(key) && config.isNull(key)) return heads;
  const kvHeads = config.integer(key, 1, LIMITS.heads, fallback === "heads" ? heads : fallback);
  if (heads % kvHeads !== 0) {
    const origin = config.has(key) ? "" : ` (absent: the family's default is ${kvHeads})`;
    config.refuse(key, `a divisor of num_attention_heads, which is ${heads}${origin}`);
  }
  return kvHeads;
}

function readHeadDim(
  config: ConfigReader,
  hiddenSize: number,
  heads: number,
  fallback: number | "hidden / heads",
): number {
  const derived = fallback === "hidden / heads" && config.isNull("head_dim");
  if (derived && hiddenSize % heads !== 0) {
    config.refuse("hidden_size", `a multiple of num_attention_heads, which is ${heads}, where head_dim is not given`);
  }
  const headDim = derived
    ? hiddenSize / heads
    : config.integer("head_dim", 2, LIMITS.headDim, typeof fallback === "number" ? fallback : undefined);
  if (headDim % 2 !== 0) {
    config.refuse(
      derived ? "hidden_size" : "head_dim",
      `such that heads have an even width for the rotary embedding; it gives ${headDim}`,
    );
  }
  if (heads * headDim > LIMITS.intermediate) {
    config.refuse("num_attention_heads", `at most ${LIMITS.intermediate} when multiplied by head_dim (${headDim})`);
  }
  return headDim;
}

const ACTIVATIONS: Readonly<Record<string, Activation["name"]>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
};

/** The activation that `key` names. */
export function readActivation(config: ConfigReader, key: string, fallback = "silu"): Activation {
  const name = config.string(key, fallback);
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  return activation === undefined
    ? config.unsupported(key, `Supported activations: ${Object.keys(ACTIVATIONS).join(", ")}.`)
    : { name: activation };
}
