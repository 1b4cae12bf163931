import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.js";
import { readQuantizationConfig } from "../checkpoint/quantization-config.js";
import type { PackedPart, PackedSource, RowSource, SourceView } from "../checkpoint/row-source.js";
import { readTensorBytes } from "../checkpoint/tensor-bytes.js";
import type { WeightFormat } from "../native/types.js";
import type { PackedMatrix, QuantMethod, TensorInfo, TensorTable } from "../quant/methods/method.js";
import { quantMethodOf } from "../quant/methods/registry.js";

/** A matrix that a quantization method makes of several tensors of the checkpoint. */
export interface ClaimedMatrix {
  /** [rows, columns] as it multiplies, after the leading axis of experts. */
  shape: readonly [rows: number, columns: number];
  /** Size of the leading axis, if there is one. */
  experts?: number;
  /** Names in the checkpoint of all tensors that it is made of. */
  parts: readonly string[];
  take(view: SourceView): ClaimedRows;
}

export interface ClaimedRows {
  source: RowSource;
  format: WeightFormat;
  block?: number;
  /** Numbers of columns: stored column c multiplies input column columnOrder[c]. */
  columnOrder?: RowSource;
  /** Why the rows are float32 although the checkpoint has them packed. */
  expanded?: string;
}

const methods = new WeakMap<Checkpoint, QuantMethod | undefined>();

/**
 * The matrix that the checkpoint's quantization method stores in place of tensor `name`; undefined if it stores none.
 * Reads small tensors, and scales that need not be exact in float16.
 * @throws UNSUPPORTED_MODEL, CONFIG_INVALID, TENSOR_MISSING, TENSOR_MISMATCH, IO_ERROR
 */
export function claimMatrix(checkpoint: Checkpoint, name: string): ClaimedMatrix | undefined {
  const table = tableOf(checkpoint);
  const matrix = methodOf(checkpoint)?.matrix(name, table);
  if (!matrix) return undefined;
  const { rows, columns, experts } = matrix;
  return {
    shape: [rows, columns],
    experts,
    parts: [...Object.values(matrix.parts), ...matrix.described].flatMap((part) => part?.name ?? []),
    take: (view) => takeRows(checkpoint, name, matrix, view),
  };
}

function methodOf(checkpoint: Checkpoint): QuantMethod | undefined {
  if (!methods.has(checkpoint)) {
    const config = readQuantizationConfig(checkpoint);
    methods.set(checkpoint, config && quantMethodOf(config));
  }
  return methods.get(checkpoint);
}

function tableOf({ tensors }: Checkpoint): TensorTable {
  return {
    get(name) {
      const tensor = tensors.get(name);
      if (!tensor) return undefined;
      const { dtype, shape, byteLength, shard, offset } = tensor;
      return { name, dtype, shape, byteLength, file: shard.path, offset };
    },
    read: ({ name, byteLength }, start = 0, count = byteLength) =>
      readTensorBytes(tensors.get(name) as CheckpointTensor, start, count),
  };
}

function takeRows(checkpoint: Checkpoint, name: string, matrix: PackedMatrix, view: SourceView): ClaimedRows {
  const { method, rows, columns, parameters, holding } = matrix;
  const parts = Object.fromEntries(
    Object.entries(matrix.parts).map(([role, tensor]) => [role, partOf(checkpoint, tensor)]),
  );
  const source: PackedSource = { kind: "packed", name, method, parts, rows, columns, parameters, format: "f32", view };
  const { groupIndex } = parts;
  if ("expanded" in holding) return { source, format: "f32", expanded: holding.expanded };
  if (view.transposedGroups) return { source, format: "f32", expanded: "a transposed matrix" };
  const { format, block, isSorted } = holding;
  const rowsOf = { source: { ...source, format, block }, format, block };
  if (!isSorted || !groupIndex) return rowsOf;
  return { ...rowsOf, columnOrder: { kind: "columnOrder", groupIndex, groups: parameters.groups ?? 1 } };
}

function partOf(checkpoint: Checkpoint, { name, dtype, shape, byteLength, offset }: TensorInfo): PackedPart {
  const { shard } = checkpoint.tensors.get(name) as CheckpointTensor;
  return { name, file: shard.realPath, offset, byteLength, dtype, shape };
}
