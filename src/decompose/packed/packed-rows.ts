import type { ColumnOrderSource, PackedSource } from "../../checkpoint/row-source.js";
import { LayerstreamError } from "../../errors.js";
import { native } from "../../native/binding.js";
import type { PackedFormat } from "../../native/types.js";
import { sortColumns, toGroupIndex } from "../../quant/methods/group-order.js";
import type { PackedMethod } from "../../quant/methods/method.js";
import { formatOf } from "../../quant/registry.js";
import type { RowReader, Workspace } from "../row-source.js";
import { Scratch } from "../scratch.js";
import { awqCodes } from "./awq.js";
import { type CodeReader, readWhole } from "./code-reader.js";
import { gptqCodes } from "./gptq.js";
import { nf4Codes } from "./nf4.js";
import { fp8Codes, integerCodes, mxfp4Codes } from "./row-codes.js";
import { TransposedGroups, ViewedRows } from "./viewed-rows.js";

/** Codes or float32 values of one read. */
const PIECE_BYTES = 4 * 1024 * 1024;

const readers: Readonly<Record<PackedMethod, (source: PackedSource, workspace: Workspace) => CodeReader>> = {
  gptq: gptqCodes,
  awq: awqCodes,
  integers: integerCodes,
  fp8: fp8Codes,
  mxfp4: mxfp4Codes,
  nf4: nf4Codes,
};

/** The rows of a quantized matrix, or those that its view takes, in its format. */
export function openPackedRows(source: PackedSource, workspace: Workspace): RowReader {
  if (!Object.hasOwn(readers, source.method)) {
    throw new LayerstreamError("INTERNAL", `There is no reader of "${source.method}", which "${source.name}" needs.`);
  }
  const matrix = new PackedRows(source, workspace);
  const { rows, transposedGroups } = source.view;
  if (transposedGroups) return new TransposedGroups(matrix, source.columns, transposedGroups);
  return rows ? new ViewedRows(matrix, rows) : matrix;
}

/** All rows of the matrix, or of one expert's. */
class PackedRows implements RowReader {
  readonly rows: number;
  readonly rowBytes: number;
  readonly rowsAtOnce: number;
  readonly #codes: CodeReader;
  readonly #memory = new Scratch();
  #loaded = { first: 0, end: 0 };

  constructor(
    private readonly source: PackedSource,
    workspace: Workspace,
  ) {
    const { rows, columns, format, block, method } = source;
    this.#codes = readers[method as PackedMethod](source, workspace);
    this.rows = rows;
    this.rowBytes = formatOf(format).rowBytes(columns, block);
    const fitting = Math.floor(PIECE_BYTES / Math.max(this.rowBytes, columns));
    this.rowsAtOnce = Math.max(1, Math.min(this.#codes.rowsAtOnce, fitting));
  }

  read(first: number, count: number): Uint8Array {
    if (first < this.#loaded.first || first + count > this.#loaded.end) {
      const end = Math.min(this.rows, first + this.#codes.rowsAtOnce);
      this.#codes.load(first, end - first);
      this.#loaded = { first, end };
    }
    return this.source.format === "f32" ? this.#expand(first, count) : this.#pack(first, count);
  }

  #pack(first: number, count: number): Uint8Array {
    const { format, name } = this.source;
    const output = this.#memory.take(count * this.rowBytes);
    const scaled = this.#codes.scaled(first, count);
    if (native().packRows(scaled, format as PackedFormat, this.#codes.columnOrder, output)) return output;
    throw new LayerstreamError(
      "QUANTIZATION_FAILED",
      `"${name}" has a scale in rows ${first} to ${first + count - 1} that is not a number of ${format}.`,
      { tensor: name, remedy: "Download the checkpoint again." },
    );
  }

  /** Codes may begin before the rows, where these do not begin with a block. */
  #expand(first: number, count: number): Uint8Array {
    const scaled = this.#codes.scaled(first, count);
    const values = scaled.rows * scaled.columns;
    const bytes = this.#memory.take(values * Float32Array.BYTES_PER_ELEMENT);
    native().expandRows(scaled, this.#codes.levels, new Float32Array(bytes.buffer, bytes.byteOffset, values));
    return bytes.subarray(bytes.length - count * this.rowBytes);
  }
}

/** Numbers of columns, as uint32, in the order in which they are stored. */
export class ColumnOrder implements RowReader {
  readonly rows = 1;
  readonly rowBytes: number;
  readonly rowsAtOnce = 1;

  constructor(
    private readonly source: ColumnOrderSource,
    private readonly workspace: Workspace,
  ) {
    this.rowBytes = source.groupIndex.byteLength;
  }

  read(): Uint8Array {
    const { groupIndex, groups } = this.source;
    const { order } = sortColumns(toGroupIndex(readWhole(groupIndex, this.workspace)), groups);
    if (order) return new Uint8Array(order.buffer);
    throw new LayerstreamError("INTERNAL", `The columns of "${groupIndex.name}" are in order.`);
  }
}
