import type { RopeSpec } from "./architecture.js";
import { type ConfigReader, LIMITS } from "./config.js";
import type { DecoderSpec } from "./family.js";
import { readRope } from "./rope-config.js";

/** Where dense Llama-like families differ. Defaults are those of the family's config class in transformers. */
export interface DenseDecoderTraits {
  /** When `max_position_embeddings` is absent. */
  maxPositionEmbeddings: number;
  /** When `num_key_value_heads` is absent: a number, or as many as query heads. */
  kvHeads: number | "heads";
  /** When `head_dim` is absent: a number, or hidden_size / num_attention_heads (also for null). */
  headDim: number | "hidden / heads";
  inputBias: boolean;
  outputBias: boolean;
  mlpBias: boolean;
  headNorm: boolean;
  /** Window of each layer, undefined for none. */
  window: (layer: number, layerCount: number) => number | undefined;
}

/** Reads the keys that all dense Llama-like families share. */
export function readDenseDecoder(config: ConfigReader, traits: DenseDecoderTraits): DecoderSpec {
  const layerCount = readLayerCount(config);
  const hiddenSize = config.integer("hidden_size", 1, LIMITS.hidden);
  const heads = config.integer("num_attention_heads", 1, LIMITS.heads);
  const kvHeads = readKvHeads(config, heads, traits.kvHeads);
  const headDim = readHeadDim(config, hiddenSize, heads, traits.headDim);
  const maxPositionEmbeddings = config.integer(
    "max_position_embeddings",
    1,
    LIMITS.positions,
    traits.maxPositionEmbeddings,
  );
  const rope: RopeSpec = readRope(config, headDim, maxPositionEmbeddings);
  return {
    hiddenSize,
    vocabSize: config.integer("vocab_size", 1, LIMITS.vocab),
    maxPositionEmbeddings,
    normEpsilon: config.positive("rms_norm_eps", 1e-6),
    tied: config.boolean("tie_word_embeddings", false),
    attention: {
      heads,
      kvHeads,
      headDim,
      inputBias: traits.inputBias,
      outputBias: traits.outputBias,
      headNorm: traits.headNorm,
    },
    mlp: {
      intermediateSize: config.integer("intermediate_size", 1, LIMITS.intermediate),
      activation: readActivation(config),
      bias: traits.mlpBias,
    },
    layers: Array.from({ length: layerCount }, (_, layer) => {
      const window = traits.window(layer, layerCount);
      return window === undefined ? { rope } : { rope, window };
    }),
    ignoredTensors: [/(^|\.)rotary_emb\.inv_freq$/],
  };
}

export function readLayerCount(config: ConfigReader): number {
  return config.integer("num_hidden_layers", 1, LIMITS.layers);
}

/** A sliding window in tokens; undefined when the key is null. */
export function readWindow(config: ConfigReader, fallback: number): number | undefined {
  if (config.has("sliding_window") && config.isNull("sliding_window")) return undefined;
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
  fallback: DenseDecoderTraits["headDim"],
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

function readActivation(config: ConfigReader): "silu" {
  const name = config.string("hidden_act", "silu");
  if (name !== "silu" && name !== "swish") config.unsupported("hidden_act", "Supported activations: silu, swish.");
  return "silu";
}
