import type { PlanOp, Register, RowView, TensorSource, TensorSpec } from "./architecture.js";
import type { NormSpec } from "./family.js";

type Matmul = Extract<PlanOp, { op: "matmul" }>;

/** Where a linear layer's matrix, and its bias if it has one, lie in the checkpoint. */
export interface LinearSource {
  /** Module in the checkpoint; tensors are its `.weight` and `.bias`. */
  module: string;
  /** The module holds more than this layer: so many rows in all, of which these are this layer's. */
  packed?: { rows: number; view: RowView };
  /** The matrix is this part of the module's [rows, columns], group by group transposed; it has no bias. */
  transposed?: { shape: readonly [number, number]; groups: { stride: number; rows: number } };
}

/** Collects a stage's tensors and ops side by side, so that tensor indices and execution order agree. */
export class StageBuilder {
  readonly tensors: TensorSpec[] = [];
  readonly plan: PlanOp[] = [];

  tensor(spec: TensorSpec): number {
    return this.tensors.push(spec) - 1;
  }

  vector(name: string, length: number, source?: TensorSource): number {
    const spec: TensorSpec = { name, shape: [length], role: "vector" };
    if (source) spec.sources = [source];
    return this.tensor(spec);
  }

  /** `groups` vectors of `width` floats a token, each normalized alone with the same weights. */
  norm(
    module: string,
    spec: NormSpec,
    io: { input: Register; output: Register; width: number; groups?: number; accumulate?: boolean },
  ): void {
    const { width, groups = 1, ...rest } = io;
    const { epsilon, kind } = spec;
    const weight = this.vector(`${module}.weight`, width);
    if (spec.plusOne) (this.tensors[weight] as TensorSpec).add = 1;
    const op: PlanOp = { op: "norm", ...rest, weight, groups, width, epsilon, centered: kind === "layer" };
    if (spec.bias) op.bias = this.vector(`${module}.bias`, width);
    this.plan.push(op);
  }

  /** `shape` is [rows, columns]; `name` is the module's name in the store. */
  linear(
    name: string,
    shape: readonly [number, number],
    bias: boolean,
    io: Omit<Matmul, "op" | "weight" | "bias" | "rowScale">,
    options: { source?: LinearSource; role?: TensorSpec["role"] } = {},
  ): void {
    const { source, role = "matrix" } = options;
    const weight: TensorSpec = { name: `${name}.weight`, shape, role };
    const packed = source?.packed;
    if (source?.transposed) {
      const { shape: from, groups } = source.transposed;
      weight.sources = [{ name: `${source.module}.weight`, shape: from, transposedGroups: groups }];
    } else if (source && packed) {
      weight.sources = [
        { name: `${source.module}.weight`, shape: [packed.rows, shape[1]], rows: packed.view } satisfies TensorSource,
      ];
    } else if (source) {
      weight.sources = [{ name: `${source.module}.weight`, shape }];
    }
    const op: Matmul = { op: "matmul", ...io, weight: this.tensor(weight) };
    if (bias) {
      const from = packed && { name: `${source.module}.bias`, shape: [packed.rows], rows: packed.view };
      op.bias = this.vector(`${name}.bias`, shape[0], from);
    }
    this.plan.push(op);
  }
}

/** `count` rows from `offset` on. */
export function rowRange(offset: number, count: number): RowView {
  return { offset, dims: [[count, 1]] };
}
