import type { PackedSource } from "../../checkpoint/row-source.js";
import { native } from "../../native/binding.js";
import type { ScaledCodes } from "../../native/types.js";
import { toFloat32 } from "../../quant/methods/holding.js";
import type { Workspace } from "../row-source.js";
import { Scratch } from "../scratch.js";
import type { CodeReader } from "./code-reader.js";
import { byteRows, notLoaded, parameterOf, partOf, placeOf, readFloats, readRows, readWhole } from "./code-reader.js";

const LEVELS = 256;
/** Columns that share a scale in rows of nf4. */
const ROW_BLOCK = 64;

/** Codes of bitsandbytes, which know no rows: blocks go on from one row to the next. */
export function nf4Codes(source: PackedSource, workspace: Workspace): CodeReader {
  const { rows, columns, format } = source;
  const blockSize = parameterOf(source, "blockSize");
  const bytes = byteRows(partOf(source, "codes"), partOf(source, "codes").byteLength, 1);
  const levels = new Float32Array(LEVELS);
  levels.set(toFloat32(readWhole(partOf(source, "levels"), workspace), "F32"));
  const readScales = scaleReader(source, workspace);
  const memory = new Scratch();
  /** `bytes` begin with an even code, `scales` with a block. */
  let strip: { code: number; block: number; bytes: Uint8Array; scales: Float32Array } | undefined;

  const unpack = (data: Uint8Array, first: number, count: number): Uint8Array => {
    const output = memory.take(count);
    native().unpackCodes("highNibbles", 4, data.subarray(Math.floor(first / 2)), 1, count, 0, first % 2, output);
    return output;
  };

  return {
    rowsAtOnce: Math.max(1, Math.min(rows, Math.floor(workspace.reader.capacity / columns))),
    levels,
    load(first, count) {
      const block = Math.floor((first * columns) / blockSize);
      const end = (first + count) * columns;
      // From the start of a block, whose codes before the first row are read along.
      const code = block * blockSize - ((block * blockSize) % 2);
      const length = Math.ceil(end / 2) - code / 2;
      const taken = new Uint8Array(length);
      readRows(bytes, workspace, code / 2, length, (piece, done) => taken.set(piece, done));
      strip = { code, block, bytes: taken, scales: readScales(block, Math.ceil(end / blockSize) - block) };
    },
    scaled(first, count): ScaledCodes {
      if (!strip) throw notLoaded(source);
      const start = first * columns;
      if (format !== "nf4") {
        // One long row, from the start of a block on.
        const block = Math.floor(start / blockSize);
        const length = start - block * blockSize + count * columns;
        const groups = Math.ceil(length / blockSize);
        const scales = strip.scales.subarray(block - strip.block, block - strip.block + groups);
        const codes = unpack(strip.bytes, block * blockSize - strip.code, length);
        return { codes, rows: 1, columns: length, block: blockSize, groups, scales };
      }
      const groups = columns / ROW_BLOCK;
      const scales = new Float32Array(count * groups);
      for (let i = 0; i < scales.length; i++) {
        scales[i] = strip.scales[Math.floor((start + i * ROW_BLOCK) / blockSize) - strip.block] as number;
      }
      const codes = unpack(strip.bytes, start - strip.code, count * columns);
      return { codes, rows: count, columns, block: ROW_BLOCK, groups, scales };
    },
  };
}

/** `absmax` of blocks, itself in codes if it is nested: level * scale + offset, in float32. */
function scaleReader(source: PackedSource, workspace: Workspace): (first: number, count: number) => Float32Array {
  const scales = partOf(source, "scales");
  const blocks = scales.shape[0] ?? 0;
  if (!source.parts.nestedScales) {
    const place = placeOf(scales, { elementBytes: 4, rows: blocks, rowStride: 4, columns: 1, columnStride: 4 });
    return (first, count) => readFloats(place, scales.dtype, workspace, first, count);
  }
  const nestedBlock = parameterOf(source, "nestedBlock");
  const offset = Math.fround(parameterOf(source, "offset"));
  const nestedScales = toFloat32(readWhole(partOf(source, "nestedScales"), workspace), "F32");
  const nestedLevels = toFloat32(readWhole(partOf(source, "nestedLevels"), workspace), "F32");
  return (first, count) => {
    const output = new Float32Array(count);
    readRows(byteRows(scales, blocks, 1), workspace, first, count, (bytes, done) => {
      for (const [i, code] of bytes.entries()) {
        const scale = nestedScales[Math.floor((first + done + i) / nestedBlock)] as number;
        output[done + i] = Math.fround((nestedLevels[code] as number) * scale) + offset;
      }
    });
    return output;
  };
}
