/** Where every byte of a layer file goes, and where it comes from. Pure. */
import {
  columnOrderName,
  lz4BlocksName,
  PAGE_BYTES,
  type StoredStage,
  type StoredTensor,
} from "../checkpoint/manifest.js";
import type { RowSource } from "../checkpoint/row-source.js";
import { encodeSafetensorsHeader, type SafetensorsTensor } from "../checkpoint/safetensors.js";
import { type AssignedLayer, type AssignedTensor, withPlainRows } from "../models/assignment.js";
import type { ElementFormat, LosslessFormat, QuantizedFormat, WeightFormat } from "../native/types.js";
import { type CompressionSettings, formatOf, isLossy } from "../quant/registry.js";
import type { Encoding, Encodings } from "./encoding.js";
import { compressionOf } from "./requantize.js";

/** Matrices of at least this size start on a page, so that they can be read alone. */
const PAGE_ALIGNED_BYTES = 64 * 1024;
const TENSOR_ALIGNMENT = 64;
export const PADDING_PREFIX = "__padding__.";

/** A run of output bytes: zeros, bytes of a file, rows as their source gives them, or rows quantized, encoded or compressed. */
export type Segment =
  | { kind: "padding"; byteLength: number }
  | CopySegment
  | RowsSegment
  | QuantizeSegment
  | EncodeSegment
  | Lz4Segment;

export interface CopySegment {
  kind: "copy";
  name: string;
  /** Path. */
  source: string;
  offset: number;
  byteLength: number;
}

export interface RowsSegment {
  kind: "rows";
  name: string;
  source: RowSource;
}

export interface QuantizeSegment {
  kind: "quantize";
  name: string;
  /** For messages. */
  file: string;
  source: RowSource;
  sourceFormat: WeightFormat;
  /** Of formats with scales. */
  sourceBlock?: number;
  format: QuantizedFormat;
  columns: number;
  block: number;
}

export interface EncodeSegment {
  kind: "encode";
  name: string;
  /** For messages. */
  file: string;
  source: RowSource;
  sourceFormat: ElementFormat;
  format: LosslessFormat;
  columns: number;
  block: number;
}

/** Rows as their source gives them, compressed: `rows` a block, into so many bytes each. */
export interface Lz4Segment {
  kind: "lz4";
  name: string;
  /** For messages. */
  file: string;
  source: RowSource;
  rows: number;
  bytes: number[];
}

/** A file of the store: `header`, then the segments, one after the other, `size` bytes in all. */
export interface FileLayout {
  name: string;
  size: number;
  header: Uint8Array;
  segments: Segment[];
  stages: StoredStage[];
}

/**
 * Stages start and end on pages; every gap is a tensor of its own, since safetensors allows no holes. Of tensors that are
 * to be compressed without loss, only those with an encoding shrink.
 */
export function layoutLayer(
  layer: AssignedLayer,
  settings: CompressionSettings,
  encodings: Encodings = {},
): FileLayout {
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

  for (const { tensors: assigned, ...place } of layer.stages) {
    pad(PAGE_BYTES);
    const stage: StoredStage = { ...place, offset: position, length: 0, tensors: [] };
    const orders: { stored: StoredTensor; source: RowSource }[] = [];
    for (const given of assigned) {
      const compression = compressionOf(given.role, settings);
      const tensor = isLossy(compression) ? withPlainRows(given) : given;
      const stored = describeTensor(tensor, isLossy(compression) ? { format: compression } : encodings[given.name]);
      pad(tensor.role !== "vector" && stored.byteLength >= PAGE_ALIGNED_BYTES ? PAGE_BYTES : TENSOR_ALIGNMENT);
      stored.offset = position;
      stage.tensors.push(stored);
      tensors.push(headerEntry(stored));
      segments.push(segmentOf(tensor, stored));
      position += stored.byteLength;
      if (tensor.columnOrder && stored.format === tensor.sourceFormat)
        orders.push({ stored, source: tensor.columnOrder });
    }
    for (const { stored, source } of orders) {
      pad(TENSOR_ALIGNMENT);
      const name = columnOrderName(stored.name);
      const [, columns = 0] = stored.shape;
      const byteLength = columns * Uint32Array.BYTES_PER_ELEMENT;
      stored.columnOrder = position;
      tensors.push({ name, dtype: "U32", shape: [columns], offset: position, byteLength });
      segments.push({ kind: "rows", name, source });
      position += byteLength;
    }
    pad(PAGE_BYTES);
    stage.length = position - stage.offset;
    stages.push(stage);
  }

  const header = encodeSafetensorsHeader(tensors, PAGE_BYTES, metadataOf(stages));
  for (const stage of stages) {
    stage.offset += header.length;
    for (const tensor of stage.tensors) {
      tensor.offset += header.length;
      if (tensor.columnOrder !== undefined) tensor.columnOrder += header.length;
    }
  }
  return { name: layer.file, size: header.length + position, header, segments, stages };
}

/** A file that is taken over as it is. */
export function layoutCopy(file: { name: string; realPath: string; size: number }): FileLayout {
  const { name, realPath: source, size } = file;
  const segments: Segment[] = [{ kind: "copy", name, source, offset: 0, byteLength: size }];
  return { name, size, header: new Uint8Array(0), segments, stages: [] };
}

/** A file whose content is known. */
export function layoutBytes(name: string, bytes: Uint8Array): FileLayout {
  return { name, size: bytes.length, header: bytes, segments: [], stages: [] };
}

function describeTensor(tensor: AssignedTensor, wanted?: Encoding | { format: QuantizedFormat }): StoredTensor {
  if (wanted?.format === "lz4") return compressed(describeTensor(tensor), wanted);
  const { name, sourceFormat } = tensor;
  const format = formatOf(wanted?.format ?? sourceFormat);
  const given = wanted && "block" in wanted ? wanted.block : undefined;
  const block = (format.name === sourceFormat ? tensor.block : given) ?? format.block;
  const shape = [...tensor.shape];
  const columns = shape.at(-1) ?? 1;
  const rowBytes = format.rowBytes(columns, block);
  const byteLength = (shape.length === 2 ? (shape[0] ?? 0) : 1) * rowBytes;
  const stored: StoredTensor = { name, format: format.name, shape, offset: 0, byteLength, rowBytes };
  if (block !== undefined) stored.block = block;
  return stored;
}

function compressed(plain: StoredTensor, { rows, bytes }: { rows: number; bytes: number[] }): StoredTensor {
  return { ...plain, byteLength: bytes.reduce((sum, size) => sum + size, 0), lz4: { rows, bytes } };
}

/** As safetensors has it: quantized rows and compressed ones are opaque bytes. */
function headerEntry(stored: StoredTensor): SafetensorsTensor {
  const { name, shape, offset, byteLength, rowBytes, block, lz4 } = stored;
  if (lz4) return { name: lz4BlocksName(name), dtype: "U8", shape: [byteLength], offset, byteLength };
  const { dtype } = formatOf(stored.format);
  return { name, dtype, shape: block === undefined ? shape : [shape[0] ?? 0, rowBytes], offset, byteLength };
}

function segmentOf(tensor: AssignedTensor, stored: StoredTensor): Segment {
  const { name, file, source, sourceFormat } = tensor;
  const { shape, format, block, lz4 } = stored;
  if (lz4) return { kind: "lz4", name, file, source, ...lz4 };
  if (format === sourceFormat) return { kind: "rows", name, source };
  if (format === "bf16_window") {
    const rows = { source, sourceFormat: sourceFormat as ElementFormat, columns: shape[1] as number };
    return { kind: "encode", name, file, ...rows, format, block: block as number };
  }
  const [columns = 0, quantized] = [shape.at(-1), format as QuantizedFormat];
  return {
    kind: "quantize",
    name,
    file,
    source,
    sourceFormat,
    sourceBlock: tensor.block,
    format: quantized,
    columns,
    block: block as number,
  };
}

/** Makes a layer file describe itself: what the rows of its U8 tensors hold. Values must be strings. */
function metadataOf(stages: readonly StoredStage[]): Record<string, string> {
  const quantized = stages
    .flatMap((stage) => stage.tensors)
    .filter(({ block, lz4 }) => block !== undefined || lz4 !== undefined)
    .map(({ name, format, shape, block, lz4 }) => [name, { format, shape, block, lz4 }] as const);
  const metadata: Record<string, string> = { format: "pt" };
  if (quantized.length > 0) metadata["layerstream.quantized"] = JSON.stringify(Object.fromEntries(quantized));
  return metadata;
}
