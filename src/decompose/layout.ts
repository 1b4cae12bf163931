/** Where every byte of a layer file goes, and where it comes from. Pure. */
import { PAGE_BYTES, type StoredStage, type StoredTensor } from "../checkpoint/manifest.js";
import { encodeSafetensorsHeader, type SafetensorsTensor } from "../checkpoint/safetensors.js";
import type { AssignedLayer, AssignedTensor } from "../models/assignment.js";
import type { ElementFormat, QuantizedFormat } from "../native/types.js";
import type { Format } from "../quant/format.js";
import { type CompressionSettings, formatOf } from "../quant/registry.js";

/** Matrices of at least this size start on a page, so that they can be read alone. */
const PAGE_ALIGNED_BYTES = 64 * 1024;
const TENSOR_ALIGNMENT = 64;
export const PADDING_PREFIX = "__padding__.";

/** A run of output bytes: zeros, bytes copied from a file, or rows quantized from a file. */
export type Segment =
  | { kind: "padding"; byteLength: number }
  | { kind: "copy"; name: string; source: string; offset: number; byteLength: number }
  | QuantizeSegment;

export interface QuantizeSegment {
  kind: "quantize";
  name: string;
  source: string;
  offset: number;
  sourceFormat: ElementFormat;
  format: QuantizedFormat;
  rows: number;
  columns: number;
  block: number;
}

/** A file of the store: `header`, then the segments, one after the other, `size` bytes in all. */
export interface FileLayout {
  name: string;
  size: number;
  header: Uint8Array;
  segments: Segment[];
  stages: StoredStage[];
}

/** Stages start and end on pages; every gap is a tensor of its own, since safetensors allows no holes. */
export function layoutLayer(layer: AssignedLayer, settings: CompressionSettings): FileLayout {
  const tensors: SafetensorsTensor[] = [];
  const segments: Segment[] = [];
  const stages: StoredStage[] = [];
  let position = 0;
  let paddings = 0;
  const pad = (alignment: number) => {
    const byteLength = -position & (alignment - 1);
    if (byteLength === 0) return;
    const name = `${PADDING_PREFIX}${paddings++}`;
    tensors.push({ name, dtype: "U8", shape: [byteLength], offset: position, byteLength });
    segments.push({ kind: "padding", byteLength });
    position += byteLength;
  };

  for (const { name, layer: index, tensors: assigned } of layer.stages) {
    pad(PAGE_BYTES);
    const stage: StoredStage = { name, layer: index, offset: position, length: 0, tensors: [] };
    for (const tensor of assigned) {
      const stored = describeTensor(tensor, settings);
      pad(tensor.role !== "vector" && stored.byteLength >= PAGE_ALIGNED_BYTES ? PAGE_BYTES : TENSOR_ALIGNMENT);
      stored.offset = position;
      stage.tensors.push(stored);
      tensors.push(headerEntry(stored));
      segments.push(segmentOf(tensor, stored));
      position += stored.byteLength;
    }
    pad(PAGE_BYTES);
    stage.length = position - stage.offset;
    stages.push(stage);
  }

  const header = encodeSafetensorsHeader(tensors, PAGE_BYTES, metadataOf(stages));
  for (const stage of stages) {
    stage.offset += header.length;
    for (const tensor of stage.tensors) tensor.offset += header.length;
  }
  return { name: layer.file, size: header.length + position, header, segments, stages };
}

/** A file that is taken over as it is. */
export function layoutCopy(file: { name: string; realPath: string; size: number }): FileLayout {
  const { name, realPath: source, size } = file;
  const segments: Segment[] = [{ kind: "copy", name, source, offset: 0, byteLength: size }];
  return { name, size, header: new Uint8Array(0), segments, stages: [] };
}

function describeTensor(tensor: AssignedTensor, settings: CompressionSettings): StoredTensor {
  const format = formatFor(tensor, settings);
  const { name, source } = tensor;
  const shape = [...source.shape];
  const columns = shape.at(-1) ?? 1;
  const rowBytes = format.rowBytes(columns);
  const byteLength = (shape.length === 2 ? (shape[0] ?? 0) : 1) * rowBytes;
  const stored: StoredTensor = { name, format: format.name, shape, offset: 0, byteLength, rowBytes };
  if (format.block !== undefined) stored.block = format.block;
  return stored;
}

function formatFor(tensor: AssignedTensor, settings: CompressionSettings): Format {
  const byRole = {
    matrix: settings.compression,
    embedding: settings.embeddingCompression,
    head: settings.headCompression,
    vector: "none" as const,
  };
  const compression = byRole[tensor.role];
  return formatOf(compression === "none" ? tensor.sourceFormat : compression);
}

/** As safetensors has it: quantized rows are opaque bytes. */
function headerEntry(stored: StoredTensor): SafetensorsTensor {
  const { name, shape, offset, byteLength, rowBytes, block } = stored;
  const { dtype } = formatOf(stored.format);
  return { name, dtype, shape: block === undefined ? shape : [shape[0] ?? 0, rowBytes], offset, byteLength };
}

function segmentOf(tensor: AssignedTensor, stored: StoredTensor): Segment {
  const { name, source, sourceFormat } = tensor;
  const { shape, block, byteLength } = stored;
  const place = { name, source: source.shard.realPath, offset: source.offset };
  if (block === undefined) return { kind: "copy", ...place, byteLength };
  const [rows = 0, columns = 0] = shape;
  return { kind: "quantize", ...place, sourceFormat, format: stored.format as QuantizedFormat, rows, columns, block };
}

/** Makes a layer file describe itself: what the rows of its U8 tensors hold. Values must be strings. */
function metadataOf(stages: readonly StoredStage[]): Record<string, string> {
  const quantized = stages
    .flatMap((stage) => stage.tensors)
    .filter((tensor) => tensor.block !== undefined)
    .map(({ name, format, shape, block }) => [name, { format, shape, block }] as const);
  const metadata: Record<string, string> = { format: "pt" };
  if (quantized.length > 0) metadata["layerstream.quantized"] = JSON.stringify(Object.fromEntries(quantized));
  return metadata;
}
