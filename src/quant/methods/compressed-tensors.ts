import { z } from "zod";
import { describeFp8 } from "./fp8.js";
import { readGroupIndex, sortColumns } from "./group-order.js";
import { holdIntegers, SCALE_DTYPES } from "./holding.js";
import {
  checkDtype,
  checkShape,
  matrixShape,
  mismatch,
  type PackedMatrix,
  type QuantizationConfig,
  type QuantMethod,
  requireTensor,
  type TensorInfo,
  type TensorTable,
  unsupported,
} from "./method.js";
import { compileModulePattern } from "./module-pattern.js";
import { groupCount, groupSize, moduleOf, parseSettings, withDefault } from "./settings.js";

const READABLE_FORMATS = [
  "pack-quantized",
  "float-quantized",
  "int-quantized",
  "naive-quantized",
  "mixed-precision",
  "dense",
];
const PATTERN_PREFIX = "re:";
/** The class of every linear layer. */
const LINEAR = "Linear";

const blockSide = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);

const weightsSchema = z.object({
  num_bits: z.number().int(),
  type: withDefault(z.enum(["int", "float"]), "int"),
  symmetric: withDefault(z.boolean(), true),
  group_size: groupSize.nullish(),
  strategy: z.enum(["tensor", "channel", "group", "block"]).nullish(),
  block_structure: z.tuple([blockSide, blockSide]).nullish(),
});

const schema = z.object({
  format: z.string().nullish(),
  config_groups: z.record(
    z.string(),
    z.object({ targets: z.array(z.string()), weights: weightsSchema.nullish(), format: z.string().nullish() }),
  ),
  ignore: z.array(z.string()).nullish(),
  sparsity_config: z.object({ format: z.string().nullish() }).nullish(),
});

type Weights = z.infer<typeof weightsSchema>;

/**
 * compressed-tensors: `weight_packed` I32 [rows, columns * bits / 32], a little-endian stream of code + 2^(bits - 1) along
 * each row; or `weight` I8 or F8_E4M3 [rows, columns]. `weight_scale` multiplies: one, one a row, one a group of columns
 * or a block. `weight_zero_point` has the same shape, packed down the rows as the codes are along them.
 */
export function compressedTensors(config: QuantizationConfig): QuantMethod {
  const settings = parseSettings(config, schema);
  const groups = Object.values(settings.config_groups);
  for (const format of [settings.format, ...groups.map((group) => group.format)]) {
    if (format && !READABLE_FORMATS.includes(format)) {
      unsupported(
        config.file,
        `the compressed-tensors format is ${JSON.stringify(format)}`,
        `layerstream reads ${READABLE_FORMATS.join(", ")}.`,
      );
    }
  }
  const sparsity = settings.sparsity_config?.format;
  if (sparsity && sparsity !== "dense") {
    unsupported(
      config.file,
      `the weights are sparse (${JSON.stringify(sparsity)})`,
      "Use a checkpoint with dense weights.",
    );
  }
  const ignores = matcherOf(settings.ignore ?? [], config.file);
  const schemes = groups.map(({ targets, weights }) => ({
    matches: matcherOf(targets, config.file),
    isDefault: targets.includes(LINEAR),
    weights,
  }));
  return {
    name: "compressed-tensors",
    matrix(name, tensors) {
      const module = moduleOf(name);
      if (module === undefined) return undefined;
      const plain = tensors.get(name);
      const codes = tensors.get(`${module}.weight_packed`) ?? plain;
      const isPacked = codes && (codes !== plain || ["I8", "F8_E4M3"].includes(codes.dtype));
      if (!isPacked || (plain && plain !== codes && ignores(module))) return undefined;
      const scheme = schemes.find(({ matches }) => matches(module)) ?? schemes.find(({ isDefault }) => isDefault);
      if (scheme?.weights) return describe(module, codes, scheme.weights, tensors);
      throw mismatch(codes, `is quantized, but no group of ${config.file} has weights of "${module}"`);
    },
  };
}

/** Entries are names of modules, or patterns after "re:". */
function matcherOf(entries: readonly string[], file: string): (module: string) => boolean {
  const patterns = entries
    .filter((entry) => entry.startsWith(PATTERN_PREFIX))
    .map((entry) => compileModulePattern(entry.slice(PATTERN_PREFIX.length), file));
  const names = new Set(entries);
  return (module) => names.has(module) || patterns.some((matches) => matches(module));
}

function describe(module: string, codes: TensorInfo, weights: Weights, tensors: TensorTable): PackedMatrix {
  const scales = requireTensor(tensors, `${module}.weight_scale`, codes);
  const { num_bits: bits, type } = weights;
  if (codes.dtype === "F8_E4M3" && type === "float" && bits === 8) {
    return describeFp8(codes, scales, fp8Block(codes, weights));
  }
  if (type !== "int" || !(bits === 8 || (bits === 4 && codes.dtype === "I32"))) {
    unsupported(
      codes.file,
      `"${codes.name}" has ${bits}-bit ${type} weights in ${codes.dtype}`,
      "layerstream reads 4-bit and 8-bit integers, and FP8.",
    );
  }
  return describeIntegers(module, codes, scales, weights, tensors);
}

/** Rows and columns that share a scale. */
function fp8Block(
  codes: TensorInfo,
  { strategy, group_size: size, block_structure: block }: Weights,
): [number, number] {
  const [rows, columns] = matrixShape(codes);
  switch (strategy ?? "tensor") {
    case "tensor":
      return [rows, columns];
    case "channel":
      return [1, columns];
    case "group":
      return [1, size && size > 0 ? size : columns];
    case "block":
      if (block) return block;
      throw mismatch(codes, "is quantized in blocks, but its group has no block_structure");
  }
}

function describeIntegers(
  module: string,
  codes: TensorInfo,
  scales: TensorInfo,
  weights: Weights,
  tensors: TensorTable,
): PackedMatrix {
  const { num_bits: bits } = weights;
  const [rows, columns] = integerShape(module, codes, bits, tensors);
  const isPerTensor = (weights.strategy ?? (weights.group_size ? "group" : "tensor")) === "tensor";
  const isGrouped = !isPerTensor && weights.strategy !== "channel" && (weights.group_size ?? -1) > 0;
  const size = isGrouped ? Math.min(weights.group_size as number, columns) : columns;
  const groups = groupCount(columns, size);
  const scaleRows = isPerTensor ? 1 : rows;
  checkDtype(scales, ...SCALE_DTYPES);
  if (scales.shape.length > 1 || groups > 1) checkShape(scales, [scaleRows, groups], `groups of ${size} columns`);
  else checkShape(scales, scales.shape.length === 0 && isPerTensor ? [] : [scaleRows], "a scale a row");
  const zeros = tensors.get(`${module}.weight_zero_point`);
  if (zeros && !weights.symmetric) checkZeros(zeros, scaleRows, groups, bits);
  else if (!weights.symmetric) requireTensor(tensors, `${module}.weight_zero_point`, codes);
  const groupIndex = tensors.get(`${module}.weight_g_idx`);
  const rule = { groupSize: size, groups, mayBeUnset: true };
  const order = groupIndex && readGroupIndex(groupIndex, columns, rule, tensors);
  const sorted = order && sortColumns(order, groups);
  return {
    method: "integers",
    rows,
    columns,
    parts: {
      codes,
      scales,
      ...(zeros && !weights.symmetric ? { zeros } : {}),
      ...(groupIndex && sorted ? { groupIndex } : {}),
    },
    described: [groupIndex, zeros, tensors.get(`${module}.weight_shape`)],
    parameters: { bits, groups, groupSize: size, scaleRows, isSigned: codes.dtype === "I8" ? 1 : 0 },
    holding: holdIntegers(bits, columns, sorted ?? { block: size }, scales, tensors),
  };
}

function integerShape(
  module: string,
  codes: TensorInfo,
  bits: number,
  tensors: TensorTable,
): readonly [number, number] {
  if (codes.dtype === "I8") return matrixShape(codes);
  checkDtype(codes, "I32");
  const shape = requireTensor(tensors, `${module}.weight_shape`, codes);
  checkDtype(shape, "I64", "I32");
  checkShape(shape, [2], "the two sizes of a matrix");
  const bytes = Buffer.from(tensors.read(shape));
  const [rows, columns] = [0, 1].map((i) =>
    shape.dtype === "I64" ? Number(bytes.readBigInt64LE(8 * i)) : bytes.readInt32LE(4 * i),
  );
  if (!(rows && columns && rows > 0 && columns > 0 && rows < 2 ** 31 && columns < 2 ** 31)) {
    throw mismatch(shape, `says [${rows}, ${columns}]`);
  }
  checkShape(
    codes,
    [rows, Math.ceil(columns / (32 / bits))],
    `${bits} bits and [${rows}, ${columns}] in "${shape.name}"`,
  );
  return [rows, columns];
}

/** Packed in words down the rows, or as they are. */
function checkZeros(zeros: TensorInfo, rows: number, groups: number, bits: number): void {
  checkDtype(zeros, "I32", "I8");
  const stored = zeros.dtype === "I32" ? Math.ceil(rows / (32 / bits)) : rows;
  checkShape(zeros, [stored, groups], `${rows} rows in ${groups} groups`);
}
