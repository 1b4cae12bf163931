import { join, resolve } from "node:path";
import { openCheckpoint } from "../checkpoint/checkpoint.js";
import { isLayerStore, openLayerStore } from "../checkpoint/layer-store.js";
import type { KvFormat, WeightFormat } from "../native/types.js";
import { type CompressionSettings, formatOf } from "../quant/registry.js";
import {
  type Architecture,
  kvBytesPerPosition,
  type NormPlacement,
  type RopeSpec,
  type StageName,
} from "./architecture.js";
import { assignTensors } from "./assignment.js";
import { architectureOf } from "./registry.js";

export interface FormatSummary {
  parameters: number;
  bytes: number;
  /** Of this model: scales and padded blocks included. */
  bitsPerWeight: number;
}

export type Formats = Partial<Record<WeightFormat, FormatSummary>>;

/** Stages of one kind in a layer: one, or all its experts. */
export interface StageSummary {
  name: StageName;
  count: number;
  /** Of all of them. */
  bytes: number;
}

export interface LayerSummary {
  /** File in the layer store, existing or to be written. */
  file: string;
  parameters: number;
  /** Of tensors, without padding. */
  bytes: number;
  formats: Formats;
  /** In execution order. */
  stages: StageSummary[];
  /** Tokens that a token sees, itself included. Absent: all before it. */
  window?: number;
  /** Index in `ropes`. Absent: positions are not rotated. */
  rope?: number;
}

/** What a checkpoint or a layer store holds. Plain data: `JSON.stringify` gives all of it. */
export interface Inspection {
  path: string;
  kind: "checkpoint" | "store";
  family: string;
  modelType: string;
  layerCount: number;
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  attention: "grouped" | "latent";
  normPlacement: NormPlacement;
  /** Float32, all layers. */
  kvCacheBytesPerToken: number;
  /** The same by what `kvDtype` says. */
  kvCacheBytesPerTokenByFormat: Record<KvFormat, number>;
  /** Different rotary embeddings of the layers. */
  ropes: readonly RopeSpec[];
  /** Absent: no experts. */
  experts: Architecture["experts"];
  vocabSize: number;
  maxPositionEmbeddings: number;
  tied: boolean;
  /** A tied matrix counts once. */
  parameters: number;
  bytes: number;
  formats: Formats;
  /** Of a store. */
  compression: CompressionSettings | undefined;
  layers: LayerSummary[];
  /** Tensors of the checkpoint that no layer uses. */
  dropped: string[];
  /** Of a checkpoint: quantized matrices that only float32 rows hold exactly, counted by the reason. */
  expanded: Record<string, number>;
}

interface InspectedTensor {
  format: WeightFormat;
  shape: readonly number[];
  byteLength: number;
}

interface InspectedLayer {
  file: string;
  stages: { name: StageName; tensors: InspectedTensor[] }[];
}

interface Contents {
  config: Record<string, unknown>;
  architecture: Architecture;
  layers: InspectedLayer[];
  dropped: string[];
  compression: CompressionSettings | undefined;
  expanded: Record<string, number>;
}

/**
 * Describes the checkpoint or layer store in `directory`. Reads config, headers and manifest, but no weights.
 * @throws what opening them throws, and TENSOR_MISSING or TENSOR_MISMATCH if config and weights disagree
 */
export async function inspect(directory: string): Promise<Inspection> {
  const path = resolve(directory);
  const isStore = await isLayerStore(path);
  const contents = await (isStore ? readStore(path) : readCheckpoint(path));
  const { architecture, dropped, compression } = contents;
  const layers = contents.layers.map((layer) => summarizeLayer(layer, architecture));
  return {
    path,
    kind: isStore ? "store" : "checkpoint",
    family: architecture.family,
    modelType: architecture.modelType,
    layerCount: architecture.layerCount,
    hiddenSize: architecture.hiddenSize,
    intermediateSize: architecture.intermediateSize,
    heads: architecture.heads,
    kvHeads: architecture.kvHeads,
    headDim: architecture.headDim,
    attention: architecture.attention,
    normPlacement: architecture.normPlacement,
    kvCacheBytesPerToken: kvBytesPerPosition(architecture, "f32"),
    kvCacheBytesPerTokenByFormat: {
      f32: kvBytesPerPosition(architecture, "f32"),
      bf16: kvBytesPerPosition(architecture, "bf16"),
      "8bit": kvBytesPerPosition(architecture, "8bit"),
    },
    ropes: architecture.ropes,
    experts: architecture.experts,
    vocabSize: architecture.vocabSize,
    maxPositionEmbeddings: architecture.maxPositionEmbeddings,
    tied: architecture.tied,
    ...summarize(contents.layers.flatMap(tensorsOf)),
    compression,
    layers,
    dropped,
    expanded: contents.expanded,
  };
}

async function readStore(path: string): Promise<Contents> {
  const { manifest } = await openLayerStore(path);
  const { config, compression, embeddingCompression, headCompression, dropped } = manifest;
  const layers = manifest.files
    .filter((file) => file.stages.length > 0)
    .map(({ name, stages }) => ({ file: name, stages }));
  const settings = { compression, embeddingCompression, headCompression };
  return {
    config,
    architecture: architectureOf(config, join(path, "config.json")),
    layers,
    dropped,
    compression: settings,
    expanded: {},
  };
}

async function readCheckpoint(path: string): Promise<Contents> {
  const checkpoint = await openCheckpoint(path);
  const architecture = architectureOf(checkpoint.config, checkpoint.configFile);
  const assignment = assignTensors(checkpoint, architecture);
  const layers = assignment.layers.map(({ file, stages }) => ({
    file,
    stages: stages.map(({ name, tensors }) => ({
      name,
      tensors: tensors.map(({ shape, sourceFormat: format, block }) => {
        const byteLength =
          (shape.length === 2 ? (shape[0] ?? 0) : 1) * formatOf(format).rowBytes(shape.at(-1) ?? 1, block);
        return { shape, format, byteLength } satisfies InspectedTensor;
      }),
    })),
  }));
  const expanded: Record<string, number> = {};
  for (const { stages } of assignment.layers) {
    for (const reason of stages.flatMap(({ tensors }) => tensors.flatMap((tensor) => tensor.expanded ?? []))) {
      expanded[reason] = (expanded[reason] ?? 0) + 1;
    }
  }
  const { dropped } = assignment;
  return { config: checkpoint.config, architecture, layers, dropped, compression: undefined, expanded };
}

function summarize(tensors: readonly InspectedTensor[]): { parameters: number; bytes: number; formats: Formats } {
  const formats: Formats = {};
  for (const { format, shape, byteLength } of tensors) {
    formats[format] ??= { parameters: 0, bytes: 0, bitsPerWeight: formatOf(format).bitsPerWeight };
    const summary = formats[format];
    summary.parameters += shape.reduce((product, size) => product * size, 1);
    summary.bytes += byteLength;
    summary.bitsPerWeight = (summary.bytes * 8) / summary.parameters;
  }
  const all = Object.values(formats);
  const total = (key: "parameters" | "bytes") => all.reduce((sum, summary) => sum + summary[key], 0);
  return { parameters: total("parameters"), bytes: total("bytes"), formats };
}

function tensorsOf({ stages }: InspectedLayer): InspectedTensor[] {
  return stages.flatMap((stage) => stage.tensors);
}

function summarizeLayer(layer: InspectedLayer, architecture: Architecture): LayerSummary {
  const stages = new Map<StageName, StageSummary>();
  for (const { name, tensors } of layer.stages) {
    const stage = stages.get(name) ?? { name, count: 0, bytes: 0 };
    stage.count += 1;
    stage.bytes += tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
    stages.set(name, stage);
  }
  const summary = { file: layer.file, ...summarize(tensorsOf(layer)), stages: [...stages.values()] };
  return { ...summary, ...attentionOf(layer.file, architecture) };
}

/** What is particular about the attention of one layer. */
function attentionOf(file: string, { layers, kinds }: Architecture): Pick<LayerSummary, "window" | "rope"> {
  const stages = layers.find((layer) => layer.file === file)?.stages ?? [];
  const plan = stages.flatMap(({ kind }) => (kinds[kind]?.name === "attention" ? kinds[kind].plan : []));
  const found: Pick<LayerSummary, "window" | "rope"> = {};
  for (const op of plan) {
    if (op.op === "attention" && op.window !== undefined) found.window = op.window;
    if (op.op === "rope") found.rope = op.table;
  }
  return found;
}
