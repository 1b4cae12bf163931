import { join, resolve } from "node:path";
import { openCheckpoint } from "../checkpoint/checkpoint.js";
import { isLayerStore, openLayerStore } from "../checkpoint/layer-store.js";
import type { WeightFormat } from "../native/types.js";
import { type CompressionSettings, formatOf } from "../quant/registry.js";
import { formatBytes, formatCount } from "../units.js";
import type { Architecture } from "./architecture.js";
import { assignTensors } from "./assignment.js";
import { architectureOf } from "./registry.js";

export interface FormatSummary {
  parameters: number;
  bytes: number;
  /** Of this model: scales and padded blocks included. */
  bitsPerWeight: number;
}

export type Formats = Partial<Record<WeightFormat, FormatSummary>>;

export interface LayerSummary {
  /** File in the layer store, existing or to be written. */
  file: string;
  parameters: number;
  /** Of tensors, without padding. */
  bytes: number;
  formats: Formats;
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

interface Contents {
  config: Record<string, unknown>;
  architecture: Architecture;
  layers: { file: string; tensors: InspectedTensor[] }[];
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
  const layers = contents.layers.map(({ file, tensors }) => ({ file, ...summarize(tensors) }));
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
    vocabSize: architecture.vocabSize,
    maxPositionEmbeddings: architecture.maxPositionEmbeddings,
    tied: architecture.tied,
    ...summarize(contents.layers.flatMap(({ tensors }) => tensors)),
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
    .map((file) => ({ file: file.name, tensors: file.stages.flatMap((stage) => stage.tensors) }));
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
    tensors: stages.flatMap((stage) =>
      stage.tensors.map(({ shape, sourceFormat: format, block }) => {
        const byteLength =
          (shape.length === 2 ? (shape[0] ?? 0) : 1) * formatOf(format).rowBytes(shape.at(-1) ?? 1, block);
        return { shape, format, byteLength } satisfies InspectedTensor;
      }),
    ),
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

/** The inspection as lines of text; runs of layers that look the same share a line. */
export function renderInspection(inspection: Inspection): string {
  const { compression } = inspection;
  const facts: [string, string][] = [
    [inspection.kind, inspection.path],
    ["family", `${inspection.family} (model_type ${inspection.modelType})`],
    ["parameters", `${formatCount(inspection.parameters)} in ${formatBytes(inspection.bytes)}`],
    ["formats", renderFormats(inspection.formats)],
    ...(compression ? [["compression", renderCompression(compression)] as [string, string]] : []),
    ...Object.entries(inspection.expanded).map(([reason, count]): [string, string] => [
      "to be f32",
      `${count} quantized matrices: ${reason}`,
    ]),
    ["layers", `${inspection.layerCount}`],
    ["hidden, MLP", `${inspection.hiddenSize}, ${inspection.intermediateSize}`],
    ["heads", `${inspection.heads} of ${inspection.headDim}, KV heads ${inspection.kvHeads}`],
    ["vocabulary", `${inspection.vocabSize}${inspection.tied ? ", head tied to the embedding" : ""}`],
    ["context", `${inspection.maxPositionEmbeddings}`],
    ...(inspection.dropped.length > 0 ? [["unused", inspection.dropped.join(", ")] as [string, string]] : []),
  ];
  return [...alignColumns(facts), "", ...alignColumns(layerRows(inspection.layers))].join("\n");
}

function layerRows(layers: readonly LayerSummary[]): string[][] {
  const rows = [["file", "parameters", "bytes", "formats"]];
  let first = "";
  let previous = "";
  for (const { file, parameters, bytes, formats } of layers) {
    const cells = [formatCount(parameters), formatBytes(bytes), renderFormats(formats)];
    const same = cells.join() === previous;
    if (!same) first = file;
    if (same) rows.pop();
    rows.push([same ? `${first} to ${file}` : file, ...cells]);
    previous = cells.join();
  }
  return rows;
}

function renderFormats(formats: Formats): string {
  const parts = Object.entries(formats).map(
    ([name, { bytes, bitsPerWeight }]) => `${name} ${formatBytes(bytes)} (${Number(bitsPerWeight.toFixed(2))} bits)`,
  );
  return parts.join(", ");
}

function renderCompression({ compression, embeddingCompression, headCompression }: CompressionSettings): string {
  return `${compression}, embedding ${embeddingCompression}, head ${headCompression}`;
}

function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
