import { native } from "../../native/binding.js";
import type { PackedFormat } from "../../native/types.js";
import { elementFormatOf, formatOf } from "../registry.js";
import type { Holding, TensorInfo, TensorTable } from "./method.js";

/** dtypes that scales come in. */
export const SCALE_DTYPES = ["F16", "BF16", "F32"] as const;

const INTEGER_FORMATS: Readonly<Record<number, PackedFormat>> = { 2: "uint2", 3: "uint3", 4: "uint4", 8: "uint8" };

const VALUES_AT_ONCE = 1024 * 1024;
const LARGEST_HALF = 65504;

/** Elements of dtype F16, BF16 or F32 as numbers. */
export function toFloat32(bytes: Uint8Array, dtype: string): Float32Array {
  const format = elementFormatOf(dtype) ?? "f32";
  const output = new Float32Array(bytes.length / formatOf(format).rowBytes(1));
  native().dequantize(format, bytes, output.length === 0 ? 0 : 1, Math.max(1, output.length), 1, output);
  return output;
}

/** How codes of 2, 3, 4 or 8 bits are held. `block` columns share a scale, in the order in which columns are stored. */
export function holdIntegers(
  bits: number,
  columns: number,
  { block, order }: { block: number; order?: Uint32Array },
  scales: TensorInfo,
  tensors: TensorTable,
): Holding {
  if (block % 16 !== 0 && block < columns) return { expanded: "groups that are not multiples of 16 columns" };
  if (!areExactInHalf(scales, tensors)) return { expanded: "scales that float16 does not hold exactly" };
  return { format: INTEGER_FORMATS[bits] as PackedFormat, block, ...(order ? { isSorted: true } : {}) };
}

/** True if float16 holds every scale exactly. */
function areExactInHalf(scales: TensorInfo, tensors: TensorTable): boolean {
  if (scales.dtype === "F16") return true;
  const pieceBytes = VALUES_AT_ONCE * 4;
  for (let start = 0; start < scales.byteLength; start += pieceBytes) {
    const bytes = tensors.read(scales, start, Math.min(pieceBytes, scales.byteLength - start));
    if (!toFloat32(bytes, scales.dtype).every(isExactInHalf)) return false;
  }
  return true;
}

function isExactInHalf(value: number): boolean {
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** -14) return Number.isInteger(magnitude * 2 ** 24);
  if (!(magnitude <= LARGEST_HALF)) return false;
  // Eleven significant bits.
  return Number.isInteger(magnitude * 2 ** (10 - Math.floor(Math.log2(magnitude))));
}
