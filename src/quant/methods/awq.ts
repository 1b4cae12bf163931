import { z } from "zod";
import { holdIntegers, SCALE_DTYPES } from "./holding.js";
import {
  checkDtype,
  checkShape,
  matrixShape,
  type PackedMatrix,
  type QuantizationConfig,
  type QuantMethod,
  requireTensor,
  type TensorInfo,
  type TensorTable,
  unsupported,
} from "./method.js";
import { groupCount, groupSize, isListed, moduleNames, moduleOf, parseSettings, withDefault } from "./settings.js";

const BITS = 4;
/** Backends that read the layout of GEMM. */
const VERSIONS = ["gemm", "exllama", "ipex"];

const schema = z.object({
  bits: z.literal(BITS).nullish(),
  w_bit: z.literal(BITS).nullish(),
  group_size: groupSize.nullish(),
  q_group_size: groupSize.nullish(),
  version: withDefault(z.string(), "gemm"),
  modules_to_not_convert: moduleNames,
});

/**
 * AWQ as AutoAWQ writes it for GEMM: `qweight` I32 [columns, rows / 8], eight rows a word in the order 0, 2, 4, 6, 1, 3,
 * 5, 7; `qzeros` I32 [groups, rows / 8], packed alike; `scales` [groups, rows]. w = (code - zero) * scale.
 */
export function awq(config: QuantizationConfig): QuantMethod {
  const settings = parseSettings(config, schema);
  if (!VERSIONS.includes(settings.version.toLowerCase())) {
    unsupported(
      config.file,
      `the AWQ weights are in version ${JSON.stringify(settings.version)}, which layerstream does not read`,
      "Use a checkpoint in version gemm.",
    );
  }
  const size = settings.group_size ?? settings.q_group_size ?? 128;
  return {
    name: "awq",
    matrix(name, tensors) {
      const module = moduleOf(name);
      const codes = module === undefined ? undefined : tensors.get(`${module}.qweight`);
      if (module === undefined || codes === undefined) return undefined;
      if (isListed(module, settings.modules_to_not_convert) && tensors.get(name)) return undefined;
      return describe(module, codes, size, tensors);
    },
  };
}

function describe(module: string, codes: TensorInfo, groupSize: number, tensors: TensorTable): PackedMatrix {
  const zeros = requireTensor(tensors, `${module}.qzeros`, codes);
  const scales = requireTensor(tensors, `${module}.scales`, codes);
  checkDtype(codes, "I32");
  checkDtype(zeros, "I32");
  checkDtype(scales, ...SCALE_DTYPES);
  const [columns, words] = matrixShape(codes);
  const rows = words * 8;
  const size = groupSize === -1 ? columns : Math.min(groupSize, columns);
  const groups = groupCount(columns, size);
  const why = `${columns} columns in groups of ${size}`;
  checkShape(zeros, [groups, words], why);
  checkShape(scales, [groups, rows], why);
  return {
    method: "awq",
    rows,
    columns,
    parts: { codes, zeros, scales },
    described: [],
    parameters: { groups, groupSize: size },
    holding: holdIntegers(BITS, columns, { block: size }, scales, tensors),
  };
}
