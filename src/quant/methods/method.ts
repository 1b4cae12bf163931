/** What checkpoints that come quantized have in common: matrices made of several tensors, which a method names and checks. */
import { LayerstreamError } from "../../errors.js";
import type { PackedFormat } from "../../native/types.js";

/** A tensor of the checkpoint, as its header describes it. */
export interface TensorInfo {
  name: string;
  /** As safetensors has it. */
  dtype: string;
  shape: readonly number[];
  byteLength: number;
  /** Path, for messages. */
  file: string;
  /** Of its first byte in the file. */
  offset: number;
}

export interface TensorTable {
  get(name: string): TensorInfo | undefined;
  /** Bytes of a tensor, or some of them. @throws IO_ERROR */
  read(tensor: TensorInfo, start?: number, byteLength?: number): Uint8Array;
}

/** Who reads the parts of a matrix: one each in `decompose/packed/`. */
export type PackedMethod = "gptq" | "awq" | "integers" | "fp8" | "mxfp4" | "nf4";

/** How rows keep their codes and scales; or why no format holds them exactly, so that they become float32. */
export type Holding =
  | { format: PackedFormat; block: number /** Columns are stored sorted by group. */; isSorted?: boolean }
  | { expanded: string };

/** A matrix whose parts have been checked against one another. */
export interface PackedMatrix {
  method: PackedMethod;
  rows: number;
  columns: number;
  /** Size of the leading axis, if there is one. */
  experts?: number;
  parts: Readonly<Record<string, TensorInfo>>;
  /** Tensors that say nothing more once the matrix is described. */
  described: readonly (TensorInfo | undefined)[];
  /** Numbers that its reader needs besides. */
  parameters: Readonly<Record<string, number>>;
  holding: Holding;
}

export interface QuantMethod {
  /** The `quant_method` of config.json. */
  name: string;
  /**
   * The matrix that the checkpoint holds in place of tensor `name`; undefined if it holds none.
   * @throws TENSOR_MISSING, TENSOR_MISMATCH, UNSUPPORTED_MODEL, CONFIG_INVALID
   */
  matrix(name: string, tensors: TensorTable): PackedMatrix | undefined;
}

/** The settings of a quantized checkpoint, and the file that they are in. */
export interface QuantizationConfig {
  values: Readonly<Record<string, unknown>>;
  /** Path, for messages. */
  file: string;
}

const REMEDY = "The tensors and the quantization settings do not belong together: download the checkpoint again.";

export function mismatch(tensor: TensorInfo, what: string): LayerstreamError {
  const { file, name, offset } = tensor;
  return new LayerstreamError("TENSOR_MISMATCH", `${file}: tensor "${name}" ${what}.`, {
    file,
    tensor: name,
    offset,
    remedy: REMEDY,
  });
}

/** @throws TENSOR_MISSING; `beside` is a tensor that needs it */
export function requireTensor(tensors: TensorTable, name: string, beside: TensorInfo): TensorInfo {
  const tensor = tensors.get(name);
  if (tensor) return tensor;
  throw new LayerstreamError("TENSOR_MISSING", `${beside.file}: tensor "${beside.name}" needs "${name}".`, {
    file: beside.file,
    tensor: name,
    remedy: "Check that all shards are there.",
  });
}

/** @throws TENSOR_MISMATCH */
export function checkDtype(tensor: TensorInfo, ...dtypes: readonly string[]): void {
  if (dtypes.includes(tensor.dtype)) return;
  throw mismatch(tensor, `has dtype ${tensor.dtype}, but must have ${dtypes.join(" or ")}`);
}

/** `why` says what makes the shape so. @throws TENSOR_MISMATCH */
export function checkShape(tensor: TensorInfo, shape: readonly number[], why: string): void {
  if (tensor.shape.length === shape.length && tensor.shape.every((size, axis) => size === shape[axis])) return;
  throw mismatch(tensor, `has shape [${tensor.shape.join(", ")}], but ${why} make it [${shape.join(", ")}]`);
}

/** The two sizes of a matrix. @throws TENSOR_MISMATCH */
export function matrixShape(tensor: TensorInfo): readonly [number, number] {
  const [first, second, ...others] = tensor.shape;
  if (first !== undefined && second !== undefined && others.length === 0 && first > 0 && second > 0)
    return [first, second];
  throw mismatch(tensor, `has shape [${tensor.shape.join(", ")}] and is no matrix`);
}

/** @throws UNSUPPORTED_MODEL */
export function unsupported(file: string, what: string, remedy: string): never {
  throw new LayerstreamError("UNSUPPORTED_MODEL", `${file}: ${what}.`, { file, remedy });
}
