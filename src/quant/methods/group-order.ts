/** Act-order: checkpoints that name the group of every column. */
import { checkDtype, checkShape, mismatch, type TensorInfo, type TensorTable } from "./method.js";

export interface GroupOrder {
  /** Stored column c is column order[c], sorted by group; undefined if they are in that order already. */
  order?: Uint32Array;
  /** The most columns such that every block of so many stored columns lies in one group. */
  block: number;
  /** Group of each block of stored columns. */
  groupOf: Uint32Array;
}

/**
 * The group of each column, below `groups`; undefined if column c is in group c / groupSize, or if all say -1 and that
 * is allowed.
 * @throws TENSOR_MISMATCH
 */
export function readGroupIndex(
  tensor: TensorInfo,
  columns: number,
  { groupSize, groups, mayBeUnset = false }: { groupSize: number; groups: number; mayBeUnset?: boolean },
  tensors: TensorTable,
): Int32Array | undefined {
  checkDtype(tensor, "I32");
  checkShape(tensor, [columns], "its codes");
  const groupIndex = toGroupIndex(tensors.read(tensor));
  if (mayBeUnset && groupIndex.every((group) => group === -1)) return undefined;
  const bad = groupIndex.findIndex((group) => group < 0 || group >= groups);
  if (bad >= 0)
    throw mismatch(tensor, `puts column ${bad} in group ${groupIndex[bad]}, but there are ${groups} groups`);
  const isPlain = groupIndex.every((group, column) => group === Math.floor(column / groupSize));
  return isPlain ? undefined : groupIndex;
}

/** The elements of a tensor of dtype I32. */
export function toGroupIndex(bytes: Uint8Array): Int32Array {
  return new Int32Array(Uint8Array.from(bytes).buffer);
}

/** Sorts columns by group, those of one group in their own order. Groups are below `groups`. */
export function sortColumns(groupIndex: Int32Array, groups: number): GroupOrder {
  const starts = new Uint32Array(groups + 1);
  for (const group of groupIndex) starts[group + 1] = (starts[group + 1] as number) + 1;
  for (let group = 0; group < groups; group++) {
    starts[group + 1] = (starts[group + 1] as number) + (starts[group] as number);
  }
  const next = starts.slice();
  const order = new Uint32Array(groupIndex.length);
  for (const [column, group] of groupIndex.entries()) {
    const place = next[group] as number;
    order[place] = column;
    next[group] = place + 1;
  }
  const columns = order.length;
  const inner = starts.filter((start) => start > 0 && start < columns);
  const block = inner.reduce(greatestCommonDivisor, 0) || columns;
  const groupOf = new Uint32Array(Math.ceil(columns / block));
  for (let i = 0; i < groupOf.length; i++) groupOf[i] = groupIndex[order[i * block] as number] as number;
  const isSorted = order.every((column, index) => column === index);
  return { order: isSorted ? undefined : order, block, groupOf };
}

function greatestCommonDivisor(a: number, b: number): number {
  return a === 0 ? b : greatestCommonDivisor(b % a, a);
}
