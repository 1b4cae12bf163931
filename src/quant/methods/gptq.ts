import { z } from "zod";
import { readGroupIndex, sortColumns } from "./group-order.js";
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
import { compileModulePattern } from "./module-pattern.js";
import { groupCount, groupSize, isListed, moduleNames, moduleOf, parseSettings, withDefault } from "./settings.js";

const bits = z.literal([2, 3, 4, 8]);

const schema = z.object({
  bits,
  group_size: withDefault(groupSize, 128),
  checkpoint_format: withDefault(z.string(), "gptq"),
  is_marlin_format: withDefault(z.boolean(), false),
  pack_dtype: withDefault(z.string(), "int32"),
  dynamic: z.record(z.string(), z.object({ bits: bits.nullish(), group_size: groupSize.nullish() })).nullish(),
  modules_to_not_convert: moduleNames,
});

interface Scheme {
  bits: number;
  groupSize: number;
  /** Added to stored zeros: 1 in the first version of the format. */
  zeroOffset: number;
}

/**
 * GPTQ as AutoGPTQ and GPTQModel write it: `qweight` I32 [columns * bits / 32, rows], a little-endian stream of codes
 * down each column; `qzeros` I32 [groups, rows * bits / 32]; `scales` [groups, rows]; `g_idx` I32 [columns], the group
 * of each column. w = (code - zero) * scale.
 */
export function gptq(config: QuantizationConfig): QuantMethod {
  const settings = parseSettings(config, schema);
  const { checkpoint_format: version } = settings;
  if (settings.is_marlin_format || !["gptq", "gptq_v2"].includes(version)) {
    unsupported(
      config.file,
      `the GPTQ weights are in checkpoint_format ${JSON.stringify(settings.is_marlin_format ? "marlin" : version)}, which layerstream does not read`,
      "Use a checkpoint in the format gptq or gptq_v2.",
    );
  }
  if (!/^(torch\.)?int32$/.test(settings.pack_dtype)) {
    unsupported(
      config.file,
      `pack_dtype is ${JSON.stringify(settings.pack_dtype)}`,
      "Use a checkpoint packed in int32.",
    );
  }
  const base: Scheme = {
    bits: settings.bits,
    groupSize: settings.group_size,
    zeroOffset: version === "gptq_v2" ? 0 : 1,
  };
  const overrides = Object.entries(settings.dynamic ?? {}).map(([key, values]) => ({
    matches: compileModulePattern(key.replace(/^[+-]:/, ""), config.file),
    isUnconverted: key.startsWith("-:"),
    scheme: { ...base, bits: values.bits ?? base.bits, groupSize: values.group_size ?? base.groupSize },
  }));
  return {
    name: "gptq",
    matrix(name, tensors) {
      const module = moduleOf(name);
      const codes = module === undefined ? undefined : tensors.get(`${module}.qweight`);
      if (module === undefined || codes === undefined) return undefined;
      const override = overrides.find(({ matches }) => matches(module));
      const isUnconverted = override?.isUnconverted || isListed(module, settings.modules_to_not_convert);
      if (isUnconverted && tensors.get(name)) return undefined;
      return describe(module, codes, override?.scheme ?? base, tensors);
    },
  };
}

function describe(module: string, codes: TensorInfo, scheme: Scheme, tensors: TensorTable): PackedMatrix {
  const { bits, zeroOffset } = scheme;
  const zeros = requireTensor(tensors, `${module}.qzeros`, codes);
  const scales = requireTensor(tensors, `${module}.scales`, codes);
  const groupIndex = tensors.get(`${module}.g_idx`);
  checkDtype(codes, "I32");
  checkDtype(zeros, "I32");
  checkDtype(scales, ...SCALE_DTYPES);
  const [words, rows] = matrixShape(codes);
  const columns = groupIndex?.shape[0] ?? Math.floor((words * 32) / bits);
  const groups = groupCount(columns, scheme.groupSize);
  const why = `${bits} bits and groups of ${scheme.groupSize}`;
  checkShape(codes, [Math.ceil((columns * bits) / 32), rows], `${bits} bits and ${columns} columns`);
  checkShape(zeros, [groups, Math.ceil((rows * bits) / 32)], why);
  checkShape(scales, [groups, rows], why);
  const size = scheme.groupSize === -1 ? columns : Math.min(scheme.groupSize, columns);
  const order = groupIndex && readGroupIndex(groupIndex, columns, { groupSize: size, groups }, tensors);
  const sorted = order && sortColumns(order, groups);
  return {
    method: "gptq",
    rows,
    columns,
    parts: { codes, zeros, scales, ...(groupIndex && sorted ? { groupIndex } : {}) },
    described: [groupIndex],
    parameters: { bits, groups, groupSize: size, zeroOffset },
    holding: holdIntegers(bits, columns, sorted ?? { block: size }, scales, tensors),
  };
}
