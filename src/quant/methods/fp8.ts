import { z } from "zod";
import { SCALE_DTYPES } from "./holding.js";
import {
  checkDtype,
  checkShape,
  matrixShape,
  mismatch,
  type PackedMatrix,
  type QuantizationConfig,
  type QuantMethod,
  type TensorInfo,
  unsupported,
} from "./method.js";
import { moduleOf, parseSettings } from "./settings.js";

const blockSize = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);

const schema = z.object({
  fmt: z.string().nullish(),
  weight_block_size: z.tuple([blockSize, blockSize]).nullish(),
});

/**
 * FP8 as DeepSeek and transformers write it: `weight` F8_E4M3 [rows, columns] and `weight_scale_inv` or `weight_scale`,
 * which multiplies, for each block of `weight_block_size`; without blocks one scale, or one a row.
 */
export function fp8(config: QuantizationConfig): QuantMethod {
  const { fmt, weight_block_size: blocks } = parseSettings(config, schema);
  if (fmt && !/^(float8_)?e4m3/.test(fmt)) {
    unsupported(config.file, `the FP8 weights are in ${JSON.stringify(fmt)}`, "layerstream reads e4m3.");
  }
  return {
    name: "fp8",
    matrix(name, tensors) {
      const codes = tensors.get(name);
      if (codes?.dtype !== "F8_E4M3" || moduleOf(name) === undefined) return undefined;
      const scales = tensors.get(`${name}_scale_inv`) ?? tensors.get(`${name}_scale`);
      if (!scales) throw mismatch(codes, `has neither "${name}_scale_inv" nor "${name}_scale" beside it`);
      const [rows, columns] = matrixShape(codes);
      return describeFp8(codes, scales, blocks ?? (countOf(scales) === 1 ? [rows, columns] : [1, columns]));
    },
  };
}

/** An FP8 matrix with a scale for each block of the given rows and columns. */
export function describeFp8(
  codes: TensorInfo,
  scales: TensorInfo,
  [blockRows, blockColumns]: readonly [number, number],
): PackedMatrix {
  const [rows, columns] = matrixShape(codes);
  checkDtype(codes, "F8_E4M3");
  checkDtype(scales, ...SCALE_DTYPES);
  const shape = [Math.ceil(rows / blockRows), Math.ceil(columns / blockColumns)] as const;
  const isVector = shape[1] === 1 && countOf(scales) === shape[0] && scales.shape.length < 2;
  if (!isVector) checkShape(scales, shape, `blocks of ${blockRows} rows and ${blockColumns} columns`);
  const groupSize = Math.min(blockColumns, columns);
  const fits = groupSize % 16 === 0 || groupSize === columns;
  return {
    method: "fp8",
    rows,
    columns,
    parts: { codes, scales },
    described: [],
    parameters: { blockRows: Math.min(blockRows, rows), groupSize, groups: shape[1] },
    holding: fits ? { format: "fp8", block: groupSize } : { expanded: "blocks that are not multiples of 16 columns" },
  };
}

function countOf({ shape }: TensorInfo): number {
  return shape.reduce((product, size) => product * size, 1);
}
