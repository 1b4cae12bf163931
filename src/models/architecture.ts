/**
 * What a model is, as the rest of layerstream sees it: tensors grouped into stages, and one plan a kind of stage.
 * Produced by `decoder.ts` from a `DecoderSpec`; consumed by decompose (which tensors go where) and by the engine
 * (what to execute). Plain data: no functions, no device.
 */
import type { KvFormat } from "../native/types.js";
import { type KvShape, kvVectorBytes } from "./kv-format.js";

/**
 * Float32 working memory, one row a token. `hidden` lives through a pass and `normed` until the next norm overwrites it;
 * the others live within one stage. Experts read `expertInput` and write `expertOutput`: rows of the tokens that chose them.
 */
export type Register =
  | "hidden"
  | "normed"
  | "query"
  | "key"
  | "value"
  | "latent"
  | "queryNope"
  | "attended"
  | "gate"
  | "up"
  | "router"
  | "expertInput"
  | "expertOutput"
  | "logits";

export type ActivationName = "silu" | "gelu" | "geluTanh" | "clampedSwiglu";

/** How a router turns logits into a choice of experts and their weights. */
export interface Routing {
  experts: number;
  perToken: number;
  /** Of the logits, over all experts. */
  scoring: "softmax" | "sigmoid";
  /** Experts are in `groupCount` equal groups, of which only the `groupsKept` best are eligible. 1: no groups. */
  groupCount: number;
  groupsKept: number;
  /** A group's score: its best expert's, or the sum of its two best. */
  groupScore: "max" | "topTwoSum";
  /** Weights of the chosen experts are divided by their sum. */
  normalize: boolean;
  /** Multiplies weights at last. */
  scale: number;
}

/**
 * One operation of a plan. `weight`, `bias` and the like index `StageKind.tensors`. Shapes: T tokens a pass. A register's
 * row has `Architecture.registers[name]` floats; offsets and strides count floats within it.
 */
export type PlanOp =
  /**
   * output = (input - mean) / sqrt(variance + epsilon) * weight + bias over each of `groups` groups of `width` floats;
   * not `centered` (RMS norm): without the mean. `accumulate` adds the result to what output holds.
   */
  | {
      op: "norm";
      input: Register;
      output: Register;
      weight: number;
      bias?: number;
      groups: number;
      width: number;
      epsilon: number;
      centered: boolean;
      accumulate?: boolean;
    }
  /**
   * output[T, rows] = (input[T, columns] x weight[rows, columns]^T * rowScale + bias) * scale; `accumulate` adds to what
   * output holds. With `groups`, row r of group g = floor(r / rows) reads from inputOffset + g * inputStride and
   * writes to outputOffset + g * outputStride + r % rows.
   */
  | {
      op: "matmul";
      input: Register;
      output: Register;
      weight: number;
      bias?: number;
      rowScale?: number;
      accumulate?: boolean;
      scale?: number;
      inputOffset?: number;
      outputOffset?: number;
      groups?: { rows: number; inputStride: number; outputStride: number };
    }
  /**
   * Rotary position embedding in place with rope table `table`, on `rotaryDim` floats from `offset` of each head: pairs
   * (i, i + rotaryDim / 2), or neighbours (2i, 2i + 1) if `interleaved`.
   */
  | {
      op: "rope";
      target: Register;
      heads: number;
      headDim: number;
      rotaryDim: number;
      offset: number;
      interleaved: boolean;
      table: number;
    }
  /**
   * Appends key and value to the layer's KV cache, then causal grouped-query attention. Without `value`, values are the
   * first `valueDim` floats of the cached keys. Scores: scale * q.k, then `softCap` * tanh(score / softCap), then
   * slope * (key position - query position); `sinks` holds one more logit a head that takes weight but has no value.
   * Queries at position p >= lognLength are multiplied by log(p + 1) / log(lognLength).
   */
  | {
      op: "attention";
      query: Register;
      key: Register;
      value?: Register;
      output: Register;
      heads: number;
      kvHeads: number;
      headDim: number;
      valueDim: number;
      scale: number;
      window?: number;
      softCap?: number;
      sinks?: number;
      alibiSlopes?: readonly number[];
      lognLength?: number;
    }
  /** gate = activation(gate) [* up]; clampedSwiglu: g = min(gate, limit), (clamp(up, +-limit) + 1) * g * sigmoid(alpha * g). */
  | {
      op: "activation";
      gate: Register;
      up?: Register;
      width: number;
      activation: ActivationName;
      alpha?: number;
      limit?: number;
    }
  /** target *= sigmoid(factor[0]), token by token. */
  | { op: "scaleTokens"; target: Register; factor: Register; width: number }
  /** target = cap * tanh(target / cap). */
  | { op: "softCap"; target: Register; width: number; cap: number }
  /**
   * Chooses experts for every token; when the stage ends, each chosen expert's stage runs on its tokens' rows of `input`
   * and its weighted result is added to `output`. `correction` is added to scores for the choice only.
   */
  | ({ op: "route"; logits: Register; input: Register; output: Register; correction?: number } & Routing);

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

export type StageName = "embed" | "attention" | "mlp" | "moe" | "expert" | "head";

/** What one kind of stage holds and executes. Layers with the same kind share the plan; only the bytes differ. */
export interface StageKind {
  name: StageName;
  /** Matrices in execution order, which is the order on disk. */
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
      }
    | {
        /** LongRoPE (Ding et al., 2024): one divisor a pair, for sequences up to the trained length or beyond it. */
        type: "longrope";
        shortFactor: readonly number[];
        longFactor: readonly number[];
        originalMaxPositionEmbeddings: number;
        attentionFactor: number;
      }
    | {
        /** NTK-aware scaling as QWen v1 has it: the base grows in steps, whenever the length doubles. */
        type: "qwenDynamic";
        trainedLength: number;
      };
}

/**
 * Where norms stand. With a half f (attention or feed-forward):
 *   pre       hidden += f(norm(hidden))
 *   post      hidden += norm(f(hidden))
 *   sandwich  hidden += postNorm(f(norm(hidden)))
 *   parallel  hidden += attention(norm(hidden)) + feedForward(norm(hidden)), one norm for both
 */
export type NormPlacement = "pre" | "post" | "sandwich" | "parallel";

export interface Architecture {
  family: string;
  modelType: string;
  hiddenSize: number;
  layerCount: number;
  vocabSize: number;
  /** Query heads and their width; under latent attention, of the expanded queries. */
  heads: number;
  kvHeads: number;
  headDim: number;
  attention: "grouped" | "latent";
  normPlacement: NormPlacement;
  /** What the cache holds of one token in one layer. `valueDim` 0: values are the first part of the keys. */
  kvCache: KvShape;
  /** Of dense MLPs; of an expert where all layers have experts. */
  intermediateSize: number;
  /** Absent: no experts. */
  experts?: { count: number; perToken: number; intermediateSize: number; sharedIntermediateSize: number };
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
  /** Name of the head's matrix in checkpoints; a tied checkpoint may carry it instead of the embedding. */
  headTensor: string;
  /** Multiplies gathered embedding rows. */
  embeddingScale: number;
}

/** Full name of a spec's or source's tensor in a layer. */
export function tensorName({ name }: { name: string }, layer: number, expert = -1): string {
  return name.replace("{layer}", String(layer)).replace("{expert}", String(expert));
}

/** Keys and values of one token in all layers, bytes. */
export function kvBytesPerPosition({ layerCount, kvCache }: Architecture, format: KvFormat): number {
  return layerCount * kvVectorBytes(format, kvCache);
}
