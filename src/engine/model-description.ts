/** From an architecture and a layer store to what native code executes. Checks that the two agree. */
import type { LayerStore, TensorLocation } from "../checkpoint/layer-store.js";
import { PAGE_BYTES, type StoredTensor } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import {
  type Architecture,
  type PlanOp,
  type Register,
  type Stage,
  type StageKind,
  tensorName,
} from "../models/architecture.js";
import type { NativeMatrix, NativeStage, NativeStep, NativeVector } from "../native/types.js";
import { isElementFormat } from "../quant/registry.js";

/** A stage with its place on disk, before anything is decided about where it lives. */
export interface StageDescription {
  /** For example "layers.3.mlp" or "head". */
  name: string;
  /** Page-aligned bytes that hold the stage's matrices: what is streamed or held. */
  extentBytes: number;
  native: NativeStage;
}

export interface ModelDescription {
  files: { path: string; size: number }[];
  plans: NativeStep[][];
  stages: StageDescription[];
  embedding: { stage: number; matrix: number; scale: number };
  /** Norms and biases, as float32. */
  vectorBytes: number;
  largestRowBytes: number;
}

export function describeModel(architecture: Architecture, store: LayerStore): ModelDescription {
  const files: { path: string; size: number }[] = [];
  const stages: StageDescription[] = [];
  for (const layer of architecture.layers) {
    const stored = store.manifest.files.find((file) => file.name === layer.file);
    if (!stored) throw mismatch(store, `it has no ${layer.file}`);
    const file = files.push({ path: store.filePath(layer.file), size: stored.size }) - 1;
    for (const stage of layer.stages) stages.push(describeStage(architecture, store, stage, layer.file, file));
  }
  return {
    files,
    plans: architecture.kinds.map((kind) => nativePlan(architecture, kind)),
    stages,
    embedding: findEmbedding(architecture, stages),
    vectorBytes: sum(stages.flatMap(({ native }) => native.vectors.map((vector) => vector.length * 4))),
    largestRowBytes: Math.max(...stages.flatMap(({ native }) => native.matrices.map((matrix) => matrix.rowBytes))),
  };
}

function describeStage(
  architecture: Architecture,
  store: LayerStore,
  stage: Stage,
  fileName: string,
  file: number,
): StageDescription {
  const kind = architecture.kinds[stage.kind] as StageKind;
  const matrices: NativeMatrix[] = [];
  const vectors: NativeVector[] = [];
  for (const spec of kind.tensors) {
    const name = tensorName(spec, stage.layer);
    const location = store.tensors.get(name);
    if (!location || location.file.name !== fileName) throw mismatch(store, `${name} is not in ${fileName}`);
    const { tensor } = location;
    if (tensor.shape.length !== spec.shape.length || tensor.shape.some((size, axis) => size !== spec.shape[axis])) {
      throw mismatch(store, `${name} has shape [${tensor.shape}] and config.json implies [${spec.shape}]`);
    }
    if (spec.role === "vector") vectors.push(describeVector(store, tensor));
    else matrices.push(describeMatrix(store, location));
  }
  const first = matrices[0] as NativeMatrix;
  let end = first.offset;
  for (const matrix of matrices) {
    if (matrix.offset < end) throw mismatch(store, `the tensors of ${fileName} are not in execution order`);
    end = matrix.offset + matrix.rows * matrix.rowBytes;
  }
  const begin = Math.floor(first.offset / PAGE_BYTES) * PAGE_BYTES;
  const native: NativeStage = { kind: stage.kind, file, held: false, matrices, vectors };
  if (stage.layer >= 0) native.layer = stage.layer;
  return {
    name: stage.layer >= 0 ? `layers.${stage.layer}.${kind.name}` : kind.name,
    extentBytes: Math.ceil(end / PAGE_BYTES) * PAGE_BYTES - begin,
    native,
  };
}

function describeVector(store: LayerStore, tensor: StoredTensor): NativeVector {
  if (!isElementFormat(tensor.format)) throw mismatch(store, `${tensor.name} is quantized`);
  return { format: tensor.format, length: tensor.shape[0] as number, offset: tensor.offset };
}

function describeMatrix(store: LayerStore, { file, tensor }: TensorLocation): NativeMatrix {
  const [rows, columns] = tensor.shape as [number, number];
  // Reads are whole pages; the store pads files so that the last one exists.
  if (Math.ceil((tensor.offset + rows * tensor.rowBytes) / PAGE_BYTES) * PAGE_BYTES > file.size) {
    throw mismatch(store, `${tensor.name} lies outside ${file.name}`);
  }
  return {
    format: tensor.format,
    block: tensor.block ?? 0,
    rows,
    columns,
    rowBytes: tensor.rowBytes,
    offset: tensor.offset,
  };
}

/** Tensor indices of a plan count all tensors of the stage; native steps count matrices and vectors apart. */
function nativePlan({ registers }: Architecture, kind: StageKind): NativeStep[] {
  const ordinal = (index: number, vector: boolean) =>
    kind.tensors.slice(0, index).filter((tensor) => (tensor.role === "vector") === vector).length;
  return kind.plan.map((op) => nativeStep(op, ordinal, (register) => registers[register] ?? 0));
}

function nativeStep(
  op: PlanOp,
  ordinal: (index: number, vector: boolean) => number,
  width: (register: Register) => number,
): NativeStep {
  switch (op.op) {
    case "rmsNorm": {
      const { op: _, weight, ...rest } = op;
      const groups = width(op.input) / op.width;
      const flags = { centered: false, groupWeights: false, accumulate: false };
      return { op: "norm", ...rest, weightVector: ordinal(weight, true), groups, ...flags };
    }
    case "matmul": {
      const { weight, bias, accumulate = false, ...registers } = op;
      const matrix = ordinal(weight, false);
      const step: NativeStep = { ...registers, matrix, accumulate, scale: 1, inputOffset: 0, outputOffset: 0 };
      if (bias !== undefined) step.biasVector = ordinal(bias, true);
      return step;
    }
    case "attention":
      return { ...op, output: op.query, valueDim: op.headDim, window: op.window ?? 0, softCap: 0, lognLength: 0 };
    case "gatedActivation": {
      const { gate, up, activation } = op;
      return { op: "activation", gate, up, width: width(gate), activation, alpha: 0, limit: 0 };
    }
    case "rope":
      return { ...op, offset: 0, interleaved: false };
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

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
