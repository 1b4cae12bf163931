/** What a model family states, as data: `decoder.ts` turns it into tensors, stages and plans. */

import type { RopeSpec } from "./architecture.js";
import type { ConfigReader } from "./config.js";

/** How one decoder layer differs from its neighbours. */
export interface LayerSpec {
  rope: RopeSpec;
  /** Each token sees itself and the `window - 1` tokens before it. Absent: everything before it. */
  window?: number;
}

/**
 * A decoder of pre-normalized blocks: hidden += attention(norm(hidden)); hidden += mlp(norm(hidden)), then a final
 * norm and a head. Norms are RMS norms with a weight.
 */
export interface DecoderSpec {
  hiddenSize: number;
  vocabSize: number;
  maxPositionEmbeddings: number;
  normEpsilon: number;
  /** The head multiplies by the embedding's matrix. */
  tied: boolean;
  attention: {
    heads: number;
    kvHeads: number;
    headDim: number;
    /** q_proj, k_proj and v_proj have biases. */
    inputBias: boolean;
    /** o_proj has a bias. */
    outputBias: boolean;
    /** q_norm and k_norm normalize each head before the rotary embedding. */
    headNorm: boolean;
  };
  /** down_proj(activation(gate_proj(x)) * up_proj(x)). */
  mlp: { intermediateSize: number; activation: "silu"; bias: boolean };
  /** One entry a layer. */
  layers: readonly LayerSpec[];
  /** Tensors that checkpoints of this family carry and that execution does not need. */
  ignoredTensors: readonly RegExp[];
}

export interface ModelFamily {
  name: string;
  /** Values of `model_type` that mean this family. */
  modelTypes: readonly string[];
  /** Raises CONFIG_INVALID or UNSUPPORTED_MODEL, naming the key. */
  spec(config: ConfigReader): DecoderSpec;
  /** A tiny valid config.json with awkward shapes. */
  example: Readonly<Record<string, unknown>>;
}
