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
} from "./code-reader.js";

const BITS = 4;
const WORD_BYTES = 4;
/** Rows whose codes of one column share a word. */
const WORD_ROWS = 8;

/** Words of eight rows are read as rows of words. */
export function awqCodes(source: PackedSource, workspace: Workspace): CodeReader {
  const { rows, columns } = source;
  const [codes, scales, zeros] = [partOf(source, "codes"), partOf(source, "scales"), partOf(source, "zeros")];
  const groups = parameterOf(source, "groups");
  const block = parameterOf(source, "groupSize");
  const down = (elementBytes: number, lines: number, count: number) => ({
    elementBytes,
    rows: lines,
    rowStride: elementBytes,
    columns: count,
    columnStride: lines * elementBytes,
  });
  const lines = rows / WORD_ROWS;
  const words = new StridedRows(placeOf(codes, down(WORD_BYTES, lines, columns)), workspace);
  const scaleBytes = scales.dtype === "F32" ? 4 : 2;
  const memory = new Scratch();
  let strip: { line: number; words: Uint8Array; scales: Float32Array; zeros: Uint8Array } | undefined;

  const readZeros = (line: number, count: number): Uint8Array => {
    const output = new Uint8Array(count * WORD_ROWS * groups);
    readRows(placeOf(zeros, down(WORD_BYTES, lines, groups)), workspace, line, count, (bytes, done, batch) => {
      const target = output.subarray(done * WORD_ROWS * groups);
      native().unpackCodes("interleaved", BITS, bytes, batch * WORD_ROWS, groups, 0, 0, target);
    });
    return output;
  };

  return {
    // One line less, since a strip may begin and end within one.
    rowsAtOnce: Math.max(1, stripRows(rows, groups, (words.rowsAtOnce - 1) * WORD_ROWS)),
    levels: undefined,
    load(first, count) {
      const line = Math.floor(first / WORD_ROWS);
      const taken = Math.ceil((first + count) / WORD_ROWS) - line;
      const place = placeOf(scales, down(scaleBytes, rows, groups));
      strip = {
        line,
        scales: readFloats(place, scales.dtype, workspace, line * WORD_ROWS, taken * WORD_ROWS),
        zeros: readZeros(line, taken),
        words: words.read(line, taken),
      };
    },
    scaled(first, count): ScaledCodes {
      if (!strip) throw notLoaded(source);
      const line = Math.floor(first / WORD_ROWS);
      const unpacked = (Math.ceil((first + count) / WORD_ROWS) - line) * WORD_ROWS;
      const output = memory.take(unpacked * columns);
      const data = strip.words.subarray((line - strip.line) * words.rowBytes);
      native().unpackCodes("interleaved", BITS, data, unpacked, columns, 0, 0, output);
      const values = (first - strip.line * WORD_ROWS) * groups;
      return {
        codes: output.subarray((first - line * WORD_ROWS) * columns),
        rows: count,
        columns,
        block,
        groups,
        scales: strip.scales.subarray(values),
        zeros: strip.zeros.subarray(values),
      };
    },
  };
}
