/** Where in the checkpoint the elements of one tensor of an architecture lie. */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.js";
import { countRows, type RowDimensions, type RowSource, type StridedSource } from "../checkpoint/row-source.js";
import { LayerstreamError } from "../errors.js";
import type { WeightFormat } from "../native/types.js";
import { elementFormatOf, FORMAT_NAMES, formatOf, isElementFormat } from "../quant/registry.js";
import { type Stage, type TensorSource, type TensorSpec, tensorName } from "./architecture.js";
import { type ClaimedMatrix, claimMatrix } from "./claim.js";

export interface ResolvedSource {
  source: RowSource;
  /** The file of the checkpoint that it is in, or the first of them. */
  file: string;
  /** What the source's rows come in. */
  sourceFormat: WeightFormat;
  /** Columns that share a scale in the source's rows, where there are scales. */
  block?: number;
  /** Numbers of columns: stored column c multiplies input column columnOrder[c]. */
  columnOrder?: RowSource;
  /** Why the rows are float32 although the checkpoint has them packed. */
  expanded?: string;
  /** Names in the checkpoint of everything that it is made of. */
  parts: readonly string[];
}

/**
 * The first of the tensor's sources that the checkpoint has, as plain elements or as its quantization method packs them.
 * @throws TENSOR_MISSING, TENSOR_MISMATCH, UNSUPPORTED_MODEL
 */
export function resolveSource(
  checkpoint: Checkpoint,
  spec: TensorSpec,
  { layer, expert }: Pick<Stage, "layer" | "expert">,
): ResolvedSource {
  const sources = spec.sources ?? [{ name: spec.name, shape: spec.shape }];
  const names = sources.map((source) => tensorName(source, layer, expert));
  for (const [index, source] of sources.entries()) {
    const name = names[index] as string;
    const claimed = claimMatrix(checkpoint, name);
    const tensor = checkpoint.tensors.get(name);
    if (!claimed && !tensor) continue;
    checkView(spec, source);
    const resolved = claimed
      ? takeClaimed(checkpoint, claimed, name, source, expert)
      : takeElements(checkpoint, tensor as CheckpointTensor, source, expert);
    return spec.derive === "inverseRowNorm" ? deriveNorms(resolved, source) : resolved;
  }
  const [first, ...others] = names;
  const alternatives = others.length > 0 ? ` (or ${others.map((name) => `"${name}"`).join(", ")})` : "";
  throw new LayerstreamError(
    "TENSOR_MISSING",
    `${checkpoint.path} has no tensor "${first}"${alternatives}, which ${checkpoint.configFile} asks for.`,
    {
      file: checkpoint.path,
      tensor: first,
      remedy: "Check that all shards are there and that config.json belongs to them.",
    },
  );
}

/** A family that picks rows which its source does not have is a mistake of the program's. */
function checkView(spec: TensorSpec, { name, shape, rows, transposedGroups: groups }: TensorSource): void {
  const [length = 0, columns = 1] = shape;
  const viewed = groups ? [(length / groups.stride) * columns, groups.rows] : [rows ? countRows(rows.dims) : length];
  if (!groups && shape.length === 2) viewed.push(columns);
  if (spec.derive) viewed.length = 1;
  const last = rows ? rows.dims.reduce((sum, [count, stride]) => sum + (count - 1) * stride, rows.offset) : length - 1;
  if (last < length && viewed.length === spec.shape.length && viewed.every((size, i) => size === spec.shape[i])) return;
  throw new LayerstreamError(
    "INTERNAL",
    `"${spec.name}" is [${spec.shape.join(", ")}], but its source "${name}" gives [${viewed.join(", ")}].`,
  );
}

function takeClaimed(
  checkpoint: Checkpoint,
  claimed: ClaimedMatrix,
  name: string,
  source: TensorSource,
  expert: number | undefined,
): ResolvedSource {
  const actual = claimed.experts === undefined ? claimed.shape : [claimed.experts, ...claimed.shape];
  const file = checkpoint.tensors.get(claimed.parts[0] as string)?.shard.path ?? checkpoint.path;
  // Packed matrices lie as they multiply, whichever way plain ones do.
  checkShape(checkpoint, { name, file, shape: actual }, { ...source, transposed: false });
  const { rows, transposedGroups } = source;
  const view = { rows, transposedGroups, ...(source.experts === undefined ? {} : { expert }) };
  const { format, ...taken } = claimed.take(view);
  return { ...taken, file, sourceFormat: format, parts: claimed.parts };
}

function takeElements(
  checkpoint: Checkpoint,
  tensor: CheckpointTensor,
  source: TensorSource,
  expert = 0,
): ResolvedSource {
  const { name, shard, shape } = tensor;
  checkShape(checkpoint, { name, file: shard.path, offset: tensor.offset, shape }, source);
  const format = formatOf(checkDtype(tensor));
  // Rows of block formats are opaque: their elements are bytes.
  const isOpaque = !isElementFormat(format.name);
  if (isOpaque && (source.transposed || source.transposedGroups || source.shape.length !== 2)) {
    throw unsupported(tensor, "and cannot be transposed or split");
  }
  const inElements = (sizes: readonly number[]) =>
    isOpaque ? [...sizes.slice(0, -1), format.rowBytes(sizes.at(-1) ?? 1)] : sizes;
  const elementBytes = isOpaque ? 1 : format.rowBytes(1);
  const strides = (tensor.strides ?? rowMajorStrides(inElements(shape))).map((stride) => stride * elementBytes);
  const offset = tensor.offset + (source.experts === undefined ? 0 : expert * (strides.shift() as number));
  const rows = source.rows ?? (tensor.rowDims && { offset: 0, dims: tensor.rowDims });
  if (tensor.rowDims && (rows === source.rows || source.transposed || source.transposedGroups)) {
    throw new LayerstreamError("INTERNAL", `"${name}" has an order of rows of its own, which cannot be viewed.`);
  }
  const placement = viewOf({ ...source, rows, shape: inElements(source.shape) }, strides, offset, elementBytes);
  return {
    source: { kind: "strided", name, file: shard.realPath, elementBytes, ...placement },
    file: shard.path,
    sourceFormat: format.name,
    block: format.block,
    parts: [name],
  };
}

type Placement = Pick<StridedSource, "offset" | "rowDims" | "columns" | "columnStride">;

/** `strides` are those of the stored axes without experts, in bytes. */
function viewOf(source: TensorSource, strides: readonly number[], offset: number, elementBytes: number): Placement {
  const { shape, rows, transposedGroups: groups } = source;
  const [length = 0, columns = 1] = shape;
  const [first = 0, second = elementBytes] = strides;
  const [rowStride, columnStride] = source.transposed ? [second, first] : [first, second];
  if (groups) {
    const rowDims: RowDimensions = [
      [length / groups.stride, groups.stride * rowStride],
      [columns, columnStride],
    ];
    return { offset, rowDims, columns: groups.rows, columnStride: rowStride };
  }
  const { offset: firstRow, dims } = rows ?? { offset: 0, dims: [[length, 1]] as const };
  const rowDims = dims.map(([count, stride]) => [count, stride * rowStride] as const);
  return { offset: offset + firstRow * rowStride, rowDims, columns, columnStride };
}

function rowMajorStrides(shape: readonly number[]): number[] {
  const strides: number[] = [];
  let stride = 1;
  for (const size of [...shape].reverse()) {
    strides.unshift(stride);
    stride *= size;
  }
  return strides;
}

function deriveNorms(resolved: ResolvedSource, { shape, rows: view }: TensorSource): ResolvedSource {
  const { source, sourceFormat, block, file, parts } = resolved;
  const [length = 0, columns = 1] = shape;
  const rows = view ? countRows(view.dims) : length;
  const norms: RowSource = { kind: "inverseRowNorm", of: source, rows, columns, format: sourceFormat, block };
  return { source: norms, file, sourceFormat: "f32", parts };
}

function checkShape(
  { configFile }: Checkpoint,
  tensor: { name: string; file: string; offset?: number; shape: readonly number[] },
  source: TensorSource,
): void {
  const matrix = source.transposed ? [...source.shape].reverse() : source.shape;
  const expected = source.experts === undefined ? matrix : [source.experts, ...matrix];
  const { name, file, offset, shape } = tensor;
  if (shape.length === expected.length && shape.every((size, axis) => size === expected[axis])) return;
  throw new LayerstreamError(
    "TENSOR_MISMATCH",
    `${file}: tensor "${name}" has shape [${shape.join(", ")}], but ${configFile} makes it [${expected.join(", ")}].`,
    { file, tensor: name, offset, remedy: "Check that config.json belongs to these weights." },
  );
}

function checkDtype(tensor: CheckpointTensor): WeightFormat {
  const format = elementFormatOf(tensor.dtype) ?? ggmlFormatOf(tensor.dtype);
  if (format) return format;
  throw unsupported(tensor, "which is not computed with");
}

/** GGUF's block types, by the names that its reader gives them. */
function ggmlFormatOf(dtype: string): WeightFormat | undefined {
  return FORMAT_NAMES.find((format) => dtype === `GGUF_${format.toUpperCase()}`);
}

function unsupported({ name, shard, offset, dtype }: CheckpointTensor, why: string): LayerstreamError {
  return new LayerstreamError("UNSUPPORTED_MODEL", `${shard.path}: tensor "${name}" has dtype ${dtype}, ${why}.`, {
    file: shard.path,
    tensor: name,
    offset,
    remedy: "Convert it to F32, F16 or BF16.",
  });
}
