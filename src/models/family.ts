/** What a model family states, as data: `decoder.ts` turns it into tensors, stages and plans. */

import type { ActivationName, NormPlacement, RopeSpec, Routing } from "./architecture.js";
import type { ConfigReader } from "./config.js";

export interface NormSpec {
  /** Root mean square, or layer norm (which subtracts the mean). */
  kind: "rms" | "layer";
  epsilon: number;
  /** Layer norms only: norms have a bias vector. */
  bias?: boolean;
  /** The checkpoint holds w where 1 + w multiplies. */
  plusOne?: boolean;
}

/** Queries, keys and values by projections of their own; each key/value head serves heads / kvHeads query heads. */
export interface GroupedAttention {
  kind: "grouped";
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Multiplies scores. */
  scale: number;
  /** Query, key and value projections have biases. */
  inputBias: boolean;
  /** The output projection has a bias. */
  outputBias: boolean;
  /** Query and key are normalized before the rotary embedding: each head alone, or all heads as one vector. */
  headNorm?: "head" | "width";
  /** Scores become softCap * tanh(score / softCap). */
  softCap?: number;
  /** Each head has one more logit that takes weight but has no value. */
  sinks?: boolean;
  /** Slope of each head: added to scores times (key position - query position). */
  alibiSlopes?: readonly number[];
  /** Queries beyond this length are multiplied by log(position + 1) / log(lognLength). */
  lognLength?: number;
  /** The rotary embedding pairs neighbours (2i, 2i + 1) instead of halves (i, i + rotaryDim / 2). */
  interleaved?: boolean;
}

/**
 * Multi-head latent attention (DeepSeek-V2, 2024): keys and values are projections of one latent vector a token, which is
 * what the cache holds, beside one rotated key for all heads.
 */
export interface LatentAttention {
  kind: "latent";
  heads: number;
  /** Rank of the queries' own bottleneck; absent: queries are projected at once. */
  queryRank?: number;
  latentRank: number;
  nopeDim: number;
  ropeDim: number;
  valueDim: number;
  scale: number;
  /** q_a_proj, kv_a_proj_with_mqa and o_proj have biases. */
  bias: boolean;
  interleaved: boolean;
}

export interface Activation {
  name: ActivationName;
  /** clampedSwiglu only. */
  alpha?: number;
  limit?: number;
}

/** down(activation(gate(x)) * up(x)); without a gate, down(activation(up(x))). */
export interface MlpSpec {
  kind: "mlp";
  intermediateSize: number;
  activation: Activation;
  gated: boolean;
  bias: boolean;
}

/** A router and gated experts, of which it chooses some for each token; `shared` is a gated MLP that serves all. */
export interface MoeSpec {
  kind: "moe";
  routing: Routing;
  /** The router's logits have a bias. */
  routerBias: boolean;
  /** A vector is added to the scores for the choice only. */
  correction: boolean;
  intermediateSize: number;
  activation: Activation;
  bias: boolean;
  /** `gated`: multiplied by the sigmoid of one more logit. */
  shared?: { intermediateSize: number; gated: boolean };
}

/** How one decoder layer differs from its neighbours. */
export interface LayerSpec {
  /** Absent: positions are not rotated. */
  rope?: RopeSpec;
  /** Each token sees itself and the `window - 1` tokens before it. Absent: everything before it. */
  window?: number;
  feedForward: MlpSpec | MoeSpec;
}

/** A decoder: embedding, layers of an attention half and a feed-forward half, a final norm and a head. */
export interface DecoderSpec {
  hiddenSize: number;
  vocabSize: number;
  maxPositionEmbeddings: number;
  norm: NormSpec;
  placement: NormPlacement;
  attention: GroupedAttention | LatentAttention;
  /** One entry a layer. */
  layers: readonly LayerSpec[];
  /** The head multiplies by the embedding's matrix. */
  tied: boolean;
  /** Multiplies embedding rows. Default 1. */
  embeddingScale?: number;
  /** Multiplies what each half adds to hidden. Default 1. */
  residualScale?: number;
  head?: {
    /** A final norm before the head's matrix. Default true. */
    norm?: boolean;
    bias?: boolean;
    /** Rows of the head's matrix are divided by their length. */
    normalized?: boolean;
    /** Multiplies logits. Default 1. */
    scale?: number;
    /** Logits become softCap * tanh(logit / softCap). */
    softCap?: number;
  };
  /** Where the checkpoint's names differ from the Llama spellings that stores use. */
  names?: TensorNames;
}

/**
 * Modules of a checkpoint, without `.weight` and `.bias`. Those of a layer come after `layer`, which holds `{layer}`.
 * A packed module replaces the parts that it holds.
 */
export interface TensorNames {
  embedding?: string;
  layer?: string;
  finalNorm?: string;
  head?: string;
  attentionNorm?: string;
  postAttentionNorm?: string;
  feedForwardNorm?: string;
  postFeedForwardNorm?: string;
  query?: string;
  key?: string;
  value?: string;
  output?: string;
  queryNorm?: string;
  keyNorm?: string;
  /** `stacked`: all query heads, all key heads, all value heads. `grouped`: for each key/value head its queries, key, value. */
  queryKeyValue?: { name: string; order: "stacked" | "grouped" };
  gate?: string;
  up?: string;
  down?: string;
  /** Gate rows, then up rows. */
  gateUp?: string;
  router?: string;
  /** A whole tensor name. */
  correction?: string;
  shared?: string;
  sharedGate?: string;
  /** Module of one expert, with `{expert}`, which has gate, up and down. */
  expert?: string;
  expertGate?: string;
  expertUp?: string;
  expertDown?: string;
  /**
   * All experts in one tensor each, without `.weight`: gate and up rows alternate. Matrices are stored [in, out], biases as
   * `_bias` tensors.
   */
  stackedExperts?: { gateUp: string; down: string };
}

export interface ModelFamily {
  name: string;
  /** Values of `model_type` that mean this family. */
  modelTypes: readonly string[];
  /** Names in `architectures` that mean a language model with a head, besides ...ForCausalLM. */
  architectures?: readonly string[];
  /** Raises CONFIG_INVALID or UNSUPPORTED_MODEL, naming the key. */
  spec(config: ConfigReader): DecoderSpec;
  /** A tiny valid config.json with awkward shapes. */
  example: Readonly<Record<string, unknown>>;
}
