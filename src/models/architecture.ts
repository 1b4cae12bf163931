/**
 * What a model is, as the rest of layerstream sees it: tensors grouped into stages, and one plan a kind of stage.
 * Produced by `decoder.ts` from a `DecoderSpec`; consumed by decompose (which tensors go where) and by the engine
 * (what to execute). Plain data: no functions, no device.
 */

/** Float32 working memory, one row a token. `hidden` lives through a pass; the others only within one stage. */
export type Register = "hidden" | "normed" | "query" | "key" | "value" | "gate" | "up" | "logits";

/**
 * One operation of a plan. `weight` and `bias` index `StageKind.tensors`. Shapes: T tokens a pass.
 * `width` of a register is its floats a token, from `Architecture.registers`.
 */
export type PlanOp =
  /** output = input / sqrt(mean(input^2) + epsilon) * weight, over groups of `width` floats. */
  | { op: "rmsNorm"; input: Register; output: Register; weight: number; width: number; epsilon: number }
  /** output[T, rows] = input[T, columns] x weight[rows, columns]^T (+ bias); `accumulate` adds to what output holds. */
  | { op: "matmul"; input: Register; output: Register; weight: number; bias?: number; accumulate?: boolean }
  /** Rotary position embedding in place, half-split pairs (i, i + rotaryDim / 2), with rope table `table`. */
  | { op: "rope"; target: Register; heads: number; headDim: number; rotaryDim: number; table: number }
  /** Appends key and value to the layer's KV cache, then causal grouped-query attention; the result replaces `query`. */
  | {
      op: "attention";
      query: Register;
      key: Register;
      value: Register;
      heads: number;
      kvHeads: number;
      headDim: number;
      scale: number;
      window?: number;
    }
  /** gate = activation(gate) * up. */
  | { op: "gatedActivation"; gate: Register; up: Register; activation: "silu" };

/**
 * Where a tensor lies in a checkpoint that names or packs it otherwise. `{layer}` and `{expert}` stand for numbers.
 */
export interface TensorSource {
  name: string;
  /** [rows, columns] or [length], as it multiplies: after the index of the expert, before rows are picked. */
  shape: readonly number[];
  /** The checkpoint's tensor has a leading axis of so many experts, of which the stage's own is taken. */
  experts?: number;
  /** The checkpoint stores [columns, rows]. */
  transposed?: boolean;
  rows?: RowView;
  /**
   * The source's rows come in groups of `stride` rows, of which the first `rows` are taken and transposed: row
   * g * columns + c of the tensor is column c of group g.
   */
  transposedGroups?: { stride: number; rows: number };
}

/**
 * Rows of a matrix, or elements of a vector: row r is offset + the sum of digit * stride, where the digits are those of r
 * in the mixed radix of the counts, the last one fastest.
 */
export interface RowView {
  offset: number;
  dims: readonly (readonly [count: number, stride: number])[];
}

export interface TensorSpec {
  /** Name in the store, with `{layer}` and `{expert}` where numbers go. */
  name: string;
  /** [rows, columns] for matrices, [length] for vectors. */
  shape: readonly number[];
  /** Only matrices are quantized; embedding and head have settings of their own; vectors and routers keep their dtype. */
  role: "matrix" | "vector" | "embedding" | "head" | "router";
  /** Tried in order; default: the same name and shape. */
  sources?: readonly TensorSource[];
  /** Of vectors: added to every element when loaded. */
  add?: number;
  /** The vector is 1 / max(||row||, 1e-12) of the source matrix's rows (float32). */
  derive?: "inverseRowNorm";
}

/** What one kind of stage holds and executes. Layers with the same kind share the plan; only the bytes differ. */
export interface StageKind {
  name: "embed" | "attention" | "mlp" | "head";
  /** In execution order, which is the order on disk. */
  tensors: readonly TensorSpec[];
  /** Empty for `embed`, whose rows are gathered. */
  plan: readonly PlanOp[];
}

export interface Stage {
  /** Index in `Architecture.kinds`. */
  kind: number;
  /** Decoder layer, or -1 for embed and head. */
  layer: number;
  /** Of `expert` stages, which follow their layer's `moe` stage: executed only when the router chose it. */
  expert?: number;
}

/** One file of the layer store. */
export interface Layer {
  /** "embed.safetensors", "layer-000.safetensors", ..., "head.safetensors". */
  file: string;
  stages: readonly Stage[];
}

/** Everything needed to fill a rope table: one of these for each distinct rotary embedding of the model. */
export interface RopeSpec {
  rotaryDim: number;
  theta: number;
  scaling:
    | { type: "default" }
    | { type: "linear"; factor: number }
    | { type: "dynamic"; factor: number; originalMaxPositionEmbeddings: number }
    | {
        type: "llama3";
        factor: number;
        lowFreqFactor: number;
        highFreqFactor: number;
        originalMaxPositionEmbeddings: number;
      }
    | {
        type: "yarn";
        factor: number;
        betaFast: number;
        betaSlow: number;
        originalMaxPositionEmbeddings: number;
        attentionFactor: number;
        truncate: boolean;
      };
}

export interface Architecture {
  family: string;
  modelType: string;
  hiddenSize: number;
  layerCount: number;
  vocabSize: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  intermediateSize: number;
  maxPositionEmbeddings: number;
  /** The head multiplies by the embedding: one tensor, stored once, as the head. */
  tied: boolean;
  /** Width in floats of every register that some plan uses. */
  registers: Readonly<Partial<Record<Register, number>>>;
  kinds: readonly StageKind[];
  /** embed (absent when tied), decoder layers, head: in execution order. */
  layers: readonly Layer[];
  ropes: readonly RopeSpec[];
  /** Name of the tensor whose rows are gathered for token ids (the head's matrix when tied). */
  embeddingTensor: string;
  /** Multiplies gathered embedding rows. 1 for the families so far. */
  embeddingScale: number;
  /** Tensors that checkpoints of this family may carry and that are recomputed or unused, as exact names or patterns. */
  ignoredTensors: readonly RegExp[];
}

/** Full name of a spec's or source's tensor in a layer. */
export function tensorName({ name }: { name: string }, layer: number, expert = -1): string {
  return name.replace("{layer}", String(layer)).replace("{expert}", String(expert));
}
