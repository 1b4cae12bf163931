import type { PackedSource } from "../../checkpoint/row-source.js";
import { native } from "../../native/binding.js";
import type { ScaledCodes } from "../../native/types.js";
import type { Workspace } from "../row-source.js";
import { Scratch } from "../scratch.js";
import { StridedRows } from "../strided-rows.js";
import {
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
import { groupedColumns } from "./grouped-columns.js";

const WORD_BYTES = 4;
/** Rows whose zeros of any width fill whole words. */
const ROWS_OF_WORDS = 32;

/** Words that hold codes down the columns are read as rows of words, each a stream of codes. */
export function gptqCodes(source: PackedSource, workspace: Workspace): CodeReader {
  const { rows, columns } = source;
  const [codes, scales, zeros] = [partOf(source, "codes"), partOf(source, "scales"), partOf(source, "zeros")];
  const [bits, groups, zeroOffset] = [
    parameterOf(source, "bits"),
    parameterOf(source, "groups"),
    parameterOf(source, "zeroOffset"),
  ];
  const { order, ...grouped } = groupedColumns(source, workspace);
  const down = (elementBytes: number, count: number) => ({
    elementBytes,
    rows,
    rowStride: elementBytes,
    columns: count,
    columnStride: rows * elementBytes,
  });
  const rowWords = Math.ceil((columns * bits) / 32);
  const words = new StridedRows(placeOf(codes, down(WORD_BYTES, rowWords)), workspace);
  const scaleBytes = scales.dtype === "F32" ? 4 : 2;
  const memory = new Scratch();
  let strip: { first: number; words: Uint8Array; scales: Float32Array; zeros: Uint8Array } | undefined;

  const readZeros = (first: number, count: number): Uint8Array => {
    const zeroWords = Math.ceil((rows * bits) / 32);
    const start = Math.floor(first / ROWS_OF_WORDS) * bits;
    const lead = first % ROWS_OF_WORDS;
    const taken = Math.ceil(((lead + count) * bits) / 32);
    const place = placeOf(zeros, {
      elementBytes: WORD_BYTES,
      rows: groups,
      rowStride: zeroWords * WORD_BYTES,
      columns: taken,
      columnStride: WORD_BYTES,
      start: start * WORD_BYTES,
    });
    const stored = new Uint8Array(groups * count);
    readRows(place, workspace, 0, groups, (bytes, done, batch) => {
      const output = stored.subarray(done * count);
      native().unpackCodes("stream", bits, bytes, batch, count, taken * WORD_BYTES, lead, output);
    });
    const mask = 2 ** bits - 1;
    return transposeBytes(stored, groups, count, (zero) => (zero + zeroOffset) & mask);
  };

  return {
    rowsAtOnce: stripRows(rows, groups, words.rowsAtOnce),
    levels: undefined,
    columnOrder: order,
    load(first, count) {
      strip = {
        first,
        scales: readFloats(placeOf(scales, down(scaleBytes, groups)), scales.dtype, workspace, first, count),
        zeros: readZeros(first, count),
        words: words.read(first, count),
      };
    },
    scaled(first, count): ScaledCodes {
      if (!strip) throw notLoaded(source);
      const start = first - strip.first;
      const output = memory.take(count * columns);
      const data = strip.words.subarray(start * words.rowBytes);
      native().unpackCodes("stream", bits, data, count, columns, words.rowBytes, 0, output);
      const values = start * groups;
      return {
        codes: output,
        rows: count,
        columns,
        ...grouped,
        groups,
        scales: strip.scales.subarray(values),
        zeros: strip.zeros.subarray(values),
      };
    },
  };
}
