/** What the readers of packed matrices share. */
import type { PackedPart, PackedSource, StridedSource } from "../../checkpoint/row-source.js";
import { LayerstreamError } from "../../errors.js";
import type { ScaledCodes } from "../../native/types.js";
import { toFloat32 } from "../../quant/methods/holding.js";
import type { Workspace } from "../row-source.js";
import { StridedRows } from "../strided-rows.js";

/** Codes, scales and zeros of a matrix's rows, read in strips of many rows and taken in pieces of few. */
export interface CodeReader {
  /** The most that `load` takes. */
  readonly rowsAtOnce: number;
  /** Values of codes, 256 of them; undefined: integers. */
  readonly levels: Float32Array | undefined;
  /** Stored column c is column columnOrder[c] of the codes; undefined: in their order. */
  readonly columnOrder?: Uint32Array;
  /** Reads rows; nothing else may use the workspace while they are in use. @throws IO_ERROR */
  load(first: number, count: number): void;
  /** Some of the loaded rows, valid until the next call. */
  scaled(first: number, count: number): ScaledCodes;
}

/** Scales and zeros of one strip. */
const STRIP_VALUES = 2 * 1024 * 1024;

/** As many rows as have at most so many scales, and as the codes' reader gives at once. */
export function stripRows(rows: number, groups: number, codeRowsAtOnce: number): number {
  return Math.max(1, Math.min(rows, codeRowsAtOnce, Math.floor(STRIP_VALUES / groups)));
}

export function notLoaded({ name }: PackedSource): LayerstreamError {
  return new LayerstreamError("INTERNAL", `The rows of "${name}" are taken before they are loaded.`);
}

export function partOf({ name, parts }: PackedSource, role: string): PackedPart {
  const part = parts[role];
  if (part) return part;
  throw new LayerstreamError("INTERNAL", `The packed matrix "${name}" has no ${role}.`);
}

export function parameterOf({ name, parameters }: PackedSource, key: string): number {
  const value = parameters[key];
  if (value !== undefined) return value;
  throw new LayerstreamError("INTERNAL", `The packed matrix "${name}" has no parameter ${key}.`);
}

/** Where the elements of a part lie that its rows, of `rowStride` bytes, have at `columnStride` bytes. */
export function placeOf(
  { name, file, offset }: PackedPart,
  place: {
    elementBytes: number;
    rows: number;
    rowStride: number;
    columns: number;
    columnStride: number;
    start?: number;
  },
): StridedSource {
  const { elementBytes, rows, rowStride, columns, columnStride, start = 0 } = place;
  const rowDims = [[rows, rowStride]] as const;
  return { kind: "strided", name, file, offset: offset + start, elementBytes, rowDims, columns, columnStride };
}

/** Rows of bytes as they lie in the file. */
export function byteRows(part: PackedPart, rows: number, rowBytes: number, start = 0): StridedSource {
  return placeOf(part, { elementBytes: 1, rows, rowStride: rowBytes, columns: rowBytes, columnStride: 1, start });
}

/** Gives all the rows to `use`, as many at once as the workspace's memory allows. */
export function readRows(
  source: StridedSource,
  workspace: Workspace,
  first: number,
  count: number,
  use: (bytes: Uint8Array, first: number, count: number) => void,
): void {
  const rows = new StridedRows(source, workspace);
  for (let done = 0; done < count; done += rows.rowsAtOnce) {
    const batch = Math.min(rows.rowsAtOnce, count - done);
    use(rows.read(first + done, batch), done, batch);
  }
}

/** Elements F16, BF16 or F32 of the given rows. */
export function readFloats(
  source: StridedSource,
  dtype: string,
  workspace: Workspace,
  first: number,
  count: number,
): Float32Array {
  const values = new Float32Array(count * source.columns);
  readRows(source, workspace, first, count, (bytes, done) =>
    values.set(toFloat32(bytes, dtype), done * source.columns),
  );
  return values;
}

/** Every value of [rows, columns] at [column, row], changed by `change`. */
export function transposeBytes(
  source: Uint8Array,
  rows: number,
  columns: number,
  change: (value: number) => number,
): Uint8Array {
  const output = new Uint8Array(source.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      output[column * rows + row] = change(source[row * columns + column] as number);
    }
  }
  return output;
}

/** A whole part. For small ones. */
export function readWhole(part: PackedPart, workspace: Workspace): Uint8Array {
  const output = new Uint8Array(part.byteLength);
  const source = byteRows(part, part.byteLength, 1);
  readRows(source, workspace, 0, part.byteLength, (bytes, done) => output.set(bytes, done));
  return output;
}
