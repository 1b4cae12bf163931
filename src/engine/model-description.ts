/** From an architecture and a layer store to what native code executes. Checks that the two agree. */
import type { LayerStore, TensorLocation } from "../checkpoint/layer-store.js";
import type { LoraAdapter } from "../checkpoint/lora-adapter.js";
import { PAGE_BYTES, type StoredTensor } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import {
  type Architecture,
  type PlanOp,
  type Stage,
  type StageKind,
  type TensorSpec,
  tensorName,
} from "../models/architecture.js";
import type { NativeMatrix, NativeStage, NativeStep, NativeVector } from "../native/types.js";
import { isElementFormat } from "../quant/registry.js";
import { AdapterMatcher } from "./adapters.js";

/** A stage with its place on disk, before anything is decided about where it lives. */
export interface StageDescription {
  /** For example "layers.3.mlp", "layers.3.experts.17" or "head". */
  name: string;
  /** Page-aligned bytes that hold the stage's matrices in memory: what is held, and, unless compressed, streamed. */
  extentBytes: number;
  /** The part of a token's passes that reads it: 1, and of a routed expert what the router chooses on average. */
  share: number;
  native: NativeStage;
}

export interface ModelDescription {
  files: { path: string; size: number }[];
  plans: NativeStep[][];
  stages: StageDescription[];
  embedding: { stage: number; matrix: number; scale: number };
  /** Norms, biases, column orders and adapters: always in memory, 4 bytes an element. */
  vectorBytes: number;
  largestRowBytes: number;
  /** Columns of the widest matrix. */
  widestColumns: number;
  /** Columns of the widest matrix whose input is permuted; 0 without any. */
  permutedColumns: number;
  /** The largest rank of an adapter; 0 without any. */
  adapterRank: number;
  /** Some matrices are stored compressed. */
  compressed: boolean;
}

/** @throws STORE_INVALID; LORA_INVALID for adapters that do not fit the model */
export function describeModel(
  architecture: Architecture,
  store: LayerStore,
  adapters: readonly LoraAdapter[] = [],
): ModelDescription {
  const matcher = new AdapterMatcher(adapters);
  const files: { path: string; size: number }[] = [];
  const stages: StageDescription[] = [];
  for (const layer of architecture.layers) {
    const stored = store.manifest.files.find((file) => file.name === layer.file);
    if (!stored) throw mismatch(store, `it has no ${layer.file}`);
    const file = files.push({ path: store.filePath(layer.file), size: stored.size }) - 1;
    for (const stage of layer.stages) stages.push(describeStage(architecture, store, stage, layer.file, file, matcher));
  }
  matcher.checkAllUsed(architecture);
  let vectorBytes = 0;
  let largestRowBytes = 0;
  let widestColumns = 0;
  let permutedColumns = 0;
  let adapterRank = 0;
  for (const { native } of stages) {
    for (const vector of native.vectors) vectorBytes += vector.length * 4;
    for (const { rowBytes, columns, columnOrder, adapters = [] } of native.matrices) {
      largestRowBytes = Math.max(largestRowBytes, rowBytes);
      widestColumns = Math.max(widestColumns, columns);
      for (const { rank, a, b } of adapters) {
        vectorBytes += a.byteLength + b.byteLength;
        adapterRank = Math.max(adapterRank, rank);
      }
      if (columnOrder === undefined) continue;
      vectorBytes += columns * 4;
      permutedColumns = Math.max(permutedColumns, columns);
    }
  }
  return {
    files,
    plans: architecture.kinds.map(nativePlan),
    stages,
    embedding: findEmbedding(architecture, stages),
    vectorBytes,
    largestRowBytes,
    widestColumns,
    permutedColumns,
    adapterRank,
    compressed: stages.some(({ native }) => native.matrices.some(({ lz4 }) => lz4 !== undefined)),
  };
}

function describeStage(
  architecture: Architecture,
  store: LayerStore,
  stage: Stage,
  fileName: string,
  file: number,
  adapters: AdapterMatcher,
): StageDescription {
  const kind = architecture.kinds[stage.kind] as StageKind;
  const matrices: NativeMatrix[] = [];
  const vectors: NativeVector[] = [];
  for (const spec of kind.tensors) {
    const name = tensorName(spec, stage.layer, stage.expert);
    const location = store.tensors.get(name);
    if (!location || location.file.name !== fileName) throw mismatch(store, `${name} is not in ${fileName}`);
    const { tensor } = location;
    if (tensor.shape.length !== spec.shape.length || tensor.shape.some((size, axis) => size !== spec.shape[axis])) {
      throw mismatch(store, `${name} has shape [${tensor.shape}] and config.json implies [${spec.shape}]`);
    }
    if (spec.role === "vector") vectors.push(describeVector(store, tensor, spec));
    else matrices.push(describeMatrix(store, location, adapters.updatesOf(spec, stage)));
  }
  const first = matrices[0] as NativeMatrix;
  let end = first.offset;
  let expanded = 0;
  for (const matrix of matrices) {
    if (matrix.offset < end) throw mismatch(store, `the tensors of ${fileName} are not in execution order`);
    const [bytes, stored] = [matrix.rows * matrix.rowBytes, storedBytes(matrix)];
    end = matrix.offset + stored;
    if (matrix.lz4) expanded += Math.ceil((bytes - stored) / PAGE_BYTES + 1) * PAGE_BYTES;
  }
  const begin = Math.floor(first.offset / PAGE_BYTES) * PAGE_BYTES;
  const native: NativeStage = { kind: stage.kind, file, matrices, vectors };
  if (stage.layer >= 0) native.layer = stage.layer;
  if (stage.expert !== undefined) native.routed = { expert: stage.expert };
  const { experts } = architecture;
  return {
    name: stageName(kind.name, stage),
    extentBytes: Math.ceil(end / PAGE_BYTES) * PAGE_BYTES - begin + expanded,
    share: stage.expert === undefined || !experts ? 1 : experts.perToken / experts.count,
    native,
  };
}

function stageName(kind: StageKind["name"], { layer, expert }: Stage): string {
  if (layer < 0) return kind;
  return expert === undefined ? `layers.${layer}.${kind}` : `layers.${layer}.experts.${expert}`;
}

function describeVector(store: LayerStore, tensor: StoredTensor, { add }: TensorSpec): NativeVector {
  const { format, shape, offset } = tensor;
  if (!isElementFormat(format)) throw mismatch(store, `${tensor.name} is quantized`);
  const vector: NativeVector = { format, length: shape[0] as number, offset };
  if (add !== undefined) vector.add = add;
  return vector;
}

function describeMatrix(
  store: LayerStore,
  { file, tensor }: TensorLocation,
  adapters: NonNullable<NativeMatrix["adapters"]>,
): NativeMatrix {
  const [rows, columns] = tensor.shape as [number, number];
  // Reads are whole pages; the store pads files so that the last one exists.
  if (Math.ceil((tensor.offset + tensor.byteLength) / PAGE_BYTES) * PAGE_BYTES > file.size) {
    throw mismatch(store, `${tensor.name} lies outside ${file.name}`);
  }
  const { format, rowBytes, offset, columnOrder, lz4 } = tensor;
  const matrix: NativeMatrix = { format, block: tensor.block ?? 0, rows, columns, rowBytes, offset };
  if (lz4) matrix.lz4 = { rows: lz4.rows, bytes: Uint32Array.from(lz4.bytes) };
  if (adapters.length > 0) matrix.adapters = adapters;
  return columnOrder === undefined ? matrix : { ...matrix, columnOrder };
}

/** In the file. */
function storedBytes({ lz4, rows, rowBytes }: NativeMatrix): number {
  return lz4 ? lz4.bytes.reduce((sum, bytes) => sum + bytes, 0) : rows * rowBytes;
}

/** Tensor indices of a plan count all tensors of the stage; native steps count matrices and vectors apart. */
function nativePlan(kind: StageKind): NativeStep[] {
  const ordinal = (index: number, vector: boolean) =>
    kind.tensors.slice(0, index).filter((tensor) => (tensor.role === "vector") === vector).length;
  return kind.plan.map((op) => nativeStep(op, ordinal));
}

function nativeStep(op: PlanOp, ordinal: (index: number, vector: boolean) => number): NativeStep {
  const vector = (index: number | undefined) => (index === undefined ? undefined : ordinal(index, true));
  switch (op.op) {
    case "norm": {
      const { weight, bias, accumulate = false, ...rest } = op;
      return { ...rest, weightVector: vector(weight), biasVector: vector(bias), groupWeights: false, accumulate };
    }
    case "matmul": {
      const { weight, bias, rowScale, accumulate = false, scale = 1, inputOffset = 0, outputOffset = 0, ...rest } = op;
      const vectors = { biasVector: vector(bias), rowScaleVector: vector(rowScale) };
      return { ...rest, ...vectors, matrix: ordinal(weight, false), accumulate, scale, inputOffset, outputOffset };
    }
    case "attention": {
      const { sinks, window = 0, softCap = 0, lognLength = 0, ...rest } = op;
      return { ...rest, sinksVector: vector(sinks), window, softCap, lognLength };
    }
    case "activation":
      return { ...op, alpha: op.alpha ?? 0, limit: op.limit ?? 0 };
    case "route": {
      const { correction, ...rest } = op;
      return { ...rest, correctionVector: vector(correction) };
    }
    case "rope":
    case "scaleTokens":
    case "softCap":
      return op;
  }
}

function findEmbedding(architecture: Architecture, stages: readonly StageDescription[]) {
  let stage = -1;
  let matrix = -1;
  let index = 0;
  for (const layer of architecture.layers) {
    for (const { kind } of layer.stages) {
      const tensors = architecture.kinds[kind]?.tensors.filter((tensor) => tensor.role !== "vector") ?? [];
      const found = tensors.findIndex((tensor) => tensor.name === architecture.embeddingTensor);
      if (found >= 0) {
        stage = index;
        matrix = found;
      }
      index++;
    }
  }
  if (stage < 0 || stages.length !== index) throw new LayerstreamError("INTERNAL", "The model has no embedding.");
  return { stage, matrix, scale: architecture.embeddingScale };
}

function mismatch(store: LayerStore, what: string): LayerstreamError {
  return new LayerstreamError("STORE_INVALID", `The layer store ${store.path} does not fit its config.json: ${what}.`, {
    file: store.path,
    remedy: "Decompose the checkpoint again.",
  });
}
