/** Matrices whose codes lie row after row: integers of compressed-tensors, FP8 and MXFP4. */
import type { PackedSource } from "../../checkpoint/row-source.js";
import { native } from "../../native/binding.js";
import type { ScaledCodes } from "../../native/types.js";
import type { Workspace } from "../row-source.js";
import { Scratch } from "../scratch.js";
import { StridedRows } from "../strided-rows.js";
import {
  byteRows,
  type CodeReader,
  notLoaded,
  parameterOf,
  partOf,
  placeOf,
  readFloats,
  readRows,
  stripRows,
  transposeBytes,
} from "./code-reader.js";
import { type GroupedColumns, groupedColumns } from "./grouped-columns.js";
import { E2M1_LEVELS, E4M3_LEVELS, E8M0_LEVELS } from "./levels.js";

const WORD_BYTES = 4;
const WORD_BITS = 32;
const MXFP4_BLOCK = 32;

interface RowCodes {
  bits: number;
  /** Bytes from row to row, and of the rows before those of the matrix. */
  rowBytes: number;
  start: number;
  levels: Float32Array | undefined;
  grouped: GroupedColumns;
  groups: number;
  /** [count, groups] */
  readScales(first: number, count: number): Float32Array;
  /** [count, groups] */
  readZeros?(first: number, count: number): Uint8Array;
  /** Makes codes unsigned. */
  bias?: number;
}

function rowCodes(source: PackedSource, workspace: Workspace, layout: RowCodes): CodeReader {
  const { rows, columns } = source;
  const { bits, rowBytes, start, levels, groups, bias } = layout;
  const { order, ...grouped } = layout.grouped;
  const lines = new StridedRows(byteRows(partOf(source, "codes"), rows, rowBytes, start), workspace);
  const memory = new Scratch();
  let strip: { first: number; lines: Uint8Array; scales: Float32Array; zeros: Uint8Array | undefined } | undefined;
  return {
    rowsAtOnce: stripRows(rows, groups, Math.min(lines.rowsAtOnce, Math.floor(workspace.reader.capacity / rowBytes))),
    levels,
    columnOrder: order,
    load(first, count) {
      strip = {
        first,
        scales: layout.readScales(first, count),
        zeros: layout.readZeros?.(first, count),
        lines: lines.read(first, count),
      };
    },
    scaled(first, count): ScaledCodes {
      if (!strip) throw notLoaded(source);
      const skipped = first - strip.first;
      const codes = memory.take(count * columns);
      native().unpackCodes(
        "stream",
        bits,
        strip.lines.subarray(skipped * rowBytes),
        count,
        columns,
        rowBytes,
        0,
        codes,
      );
      if (bias) for (let i = 0; i < codes.length; i++) codes[i] = (codes[i] as number) + bias;
      const scales = strip.scales.subarray(skipped * groups);
      const zeros = strip.zeros?.subarray(skipped * groups);
      return { codes, rows: count, columns, ...grouped, groups, scales, zeros };
    },
  };
}

/** `weight_packed` or `weight` of compressed-tensors, whose signed codes are stored with or without a bias. */
export function integerCodes(source: PackedSource, workspace: Workspace): CodeReader {
  const [bits, groups, scaleRows] = [
    parameterOf(source, "bits"),
    parameterOf(source, "groups"),
    parameterOf(source, "scaleRows"),
  ];
  const isSigned = parameterOf(source, "isSigned") === 1;
  const bias = 2 ** (bits - 1);
  const words = Math.ceil(source.columns / (WORD_BITS / bits));
  return rowCodes(source, workspace, {
    bits,
    rowBytes: isSigned ? source.columns : words * WORD_BYTES,
    start: 0,
    levels: undefined,
    grouped: groupedColumns(source, workspace),
    groups,
    readScales: blockScales(source, workspace, scaleRows === 1 ? source.rows : 1),
    readZeros(first, count) {
      if (!source.parts.zeros) return new Uint8Array(count * groups).fill(bias);
      if (scaleRows > 1) return readIntegerZeros(source, workspace, first, count, bits);
      const zeros = readIntegerZeros(source, workspace, 0, 1, bits);
      return Uint8Array.from({ length: count }, () => zeros[0] as number);
    },
    bias: isSigned ? bias : 0,
  });
}

function readIntegerZeros(
  source: PackedSource,
  workspace: Workspace,
  first: number,
  count: number,
  bits: number,
): Uint8Array {
  const zeros = partOf(source, "zeros");
  const groups = parameterOf(source, "groups");
  if (zeros.dtype === "I8") {
    const output = new Uint8Array(count * groups);
    const rows = byteRows(zeros, zeros.shape[0] ?? 1, groups);
    readRows(rows, workspace, first, count, (bytes, done) => output.set(bytes, done * groups));
    return output.map((zero) => zero + 2 ** (bits - 1));
  }
  const codesOfWord = WORD_BITS / bits;
  const start = Math.floor(first / codesOfWord);
  const words = Math.ceil((first + count) / codesOfWord) - start;
  const place = placeOf(zeros, {
    elementBytes: WORD_BYTES,
    rows: groups,
    rowStride: WORD_BYTES,
    columns: words,
    columnStride: groups * WORD_BYTES,
    start: start * groups * WORD_BYTES,
  });
  const stored = new Uint8Array(groups * count);
  readRows(place, workspace, 0, groups, (bytes, done, batch) => {
    const output = stored.subarray(done * count);
    native().unpackCodes("stream", bits, bytes, batch, count, words * WORD_BYTES, first % codesOfWord, output);
  });
  return transposeBytes(stored, groups, count, (zero) => zero);
}

/** `weight` F8_E4M3, with a scale for each block of rows and columns. */
export function fp8Codes(source: PackedSource, workspace: Workspace): CodeReader {
  return rowCodes(source, workspace, {
    bits: 8,
    rowBytes: source.columns,
    start: 0,
    levels: E4M3_LEVELS,
    grouped: groupedColumns(source, workspace),
    groups: parameterOf(source, "groups"),
    readScales: blockScales(source, workspace, parameterOf(source, "blockRows")),
  });
}

/** Scales [ceil(rows / blockRows), groups], each row of which goes for `blockRows` rows. */
function blockScales(source: PackedSource, workspace: Workspace, blockRows: number) {
  const scales = partOf(source, "scales");
  const groups = parameterOf(source, "groups");
  const elementBytes = scales.dtype === "F32" ? 4 : 2;
  const place = placeOf(scales, {
    elementBytes,
    rows: Math.ceil(source.rows / blockRows),
    rowStride: groups * elementBytes,
    columns: groups,
    columnStride: elementBytes,
  });
  return (first: number, count: number): Float32Array => {
    const begin = Math.floor(first / blockRows);
    const blocks = readFloats(place, scales.dtype, workspace, begin, Math.ceil((first + count) / blockRows) - begin);
    if (blockRows === 1) return blocks;
    const output = new Float32Array(count * groups);
    for (let row = 0; row < count; row++) {
      const block = Math.floor((first + row) / blockRows) - begin;
      output.set(blocks.subarray(block * groups, (block + 1) * groups), row * groups);
    }
    return output;
  };
}

/** Blocks of 16 bytes with an exponent each, of one expert. */
export function mxfp4Codes(source: PackedSource, workspace: Workspace): CodeReader {
  const { rows, columns, view } = source;
  const scales = partOf(source, "scales");
  const groups = parameterOf(source, "groups");
  const expert = view.expert ?? 0;
  const place = byteRows(scales, rows, groups, expert * rows * groups);
  return rowCodes(source, workspace, {
    bits: 4,
    rowBytes: columns / 2,
    start: (expert * rows * columns) / 2,
    levels: E2M1_LEVELS,
    grouped: { block: MXFP4_BLOCK },
    groups,
    readScales(first, count) {
      const output = new Float32Array(count * groups);
      readRows(place, workspace, first, count, (bytes, done) => {
        for (const [i, exponent] of bytes.entries()) output[done * groups + i] = E8M0_LEVELS[exponent] as number;
      });
      return output;
    },
  });
}
