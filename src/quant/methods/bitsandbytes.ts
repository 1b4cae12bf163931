import { z } from "zod";
import { toFloat32 } from "./holding.js";
import {
  checkDtype,
  checkShape,
  mismatch,
  type PackedMatrix,
  type QuantizationConfig,
  type QuantMethod,
  requireTensor,
  type TensorInfo,
  type TensorTable,
  unsupported,
} from "./method.js";
import { moduleOf, parseSettings, withDefault } from "./settings.js";

const MAX_STATE_BYTES = 64 * 1024;
const NESTED_LEVELS = 256;
/** Columns that share a scale in rows of nf4. */
const ROW_BLOCK = 64;

const schema = z.object({
  load_in_4bit: withDefault(z.boolean(), false),
  load_in_8bit: withDefault(z.boolean(), false),
  bnb_4bit_quant_type: withDefault(z.string(), "fp4"),
});

const size = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);

const stateSchema = z.object({
  quant_type: z.literal("nf4"),
  blocksize: size.min(2).max(2 ** 20),
  shape: z.tuple([size, size]),
  nested_blocksize: size.optional(),
  nested_offset: z.number().optional(),
});

/**
 * NF4 of bitsandbytes: `weight`, the bytes of all codes in row order, the high nibble first; `weight.absmax`, a scale for
 * each `blocksize` codes, itself 8-bit if nested; `weight.quant_map`, the 16 levels; and a JSON text with the shape.
 */
export function bitsandbytes(config: QuantizationConfig): QuantMethod {
  const settings = parseSettings(config, schema);
  const kind = settings.load_in_8bit ? "int8" : settings.bnb_4bit_quant_type;
  if (kind !== "nf4" || !settings.load_in_4bit) {
    const what = `the bitsandbytes weights are ${kind}, which layerstream does not read`;
    unsupported(config.file, what, "Use a checkpoint in nf4, or the original one.");
  }
  return {
    name: "bitsandbytes",
    matrix(name, tensors) {
      const codes = tensors.get(name);
      if (!codes || moduleOf(name) === undefined || !tensors.get(`${name}.absmax`)) return undefined;
      return describe(codes, tensors);
    },
  };
}

function describe(codes: TensorInfo, tensors: TensorTable): PackedMatrix {
  const { name } = codes;
  const part = (suffix: string) => requireTensor(tensors, `${name}.${suffix}`, codes);
  const description = part("quant_state.bitsandbytes__nf4");
  const state = readState(description, tensors);
  const [rows, columns] = state.shape;
  const count = rows * columns;
  if (codes.byteLength !== Math.ceil(count / 2)) {
    throw mismatch(
      codes,
      `has ${codes.byteLength} bytes, but ${rows} rows of ${columns} 4-bit codes take ${Math.ceil(count / 2)}`,
    );
  }
  const scales = part("absmax");
  const levels = part("quant_map");
  const blocks = Math.ceil(count / state.blocksize);
  checkShape(scales, [blocks], `${count} codes in blocks of ${state.blocksize}`);
  checkDtype(levels, "F32");
  checkShape(levels, [16], "4 bits");
  const parts: Record<string, TensorInfo> = { codes, scales, levels };
  const parameters: Record<string, number> = { blockSize: state.blocksize };
  if (scales.dtype === "U8") {
    const { nested_blocksize: nestedBlock, nested_offset: offset } = state;
    if (nestedBlock === undefined || offset === undefined) {
      throw mismatch(scales, "is nested, but its quant_state has no nested_blocksize or no nested_offset");
    }
    const nestedScales = part("nested_absmax");
    const nestedLevels = part("nested_quant_map");
    checkDtype(nestedScales, "F32");
    checkShape(nestedScales, [Math.ceil(blocks / nestedBlock)], `${blocks} scales in blocks of ${nestedBlock}`);
    checkDtype(nestedLevels, "F32");
    checkShape(nestedLevels, [NESTED_LEVELS], "8 bits");
    Object.assign(parts, { nestedScales, nestedLevels });
    Object.assign(parameters, { nestedBlock, offset });
  } else checkDtype(scales, "F32");
  const isAligned = columns % ROW_BLOCK === 0 && state.blocksize % ROW_BLOCK === 0;
  const isStandard = toFloat32(tensors.read(levels), "F32").every((level, code) => level === NORMAL_FLOAT4[code]);
  return {
    method: "nf4",
    rows,
    columns,
    parts,
    described: [description],
    parameters,
    holding: !isAligned
      ? { expanded: `blocks that do not end with rows of ${ROW_BLOCK} columns` }
      : isStandard
        ? { format: "nf4", block: ROW_BLOCK }
        : { expanded: "levels of its own" },
  };
}

/** @throws TENSOR_MISMATCH for what is not the JSON of an NF4 quant_state */
function readState(tensor: TensorInfo, tensors: TensorTable): z.infer<typeof stateSchema> {
  checkDtype(tensor, "U8");
  if (tensor.byteLength > MAX_STATE_BYTES)
    throw mismatch(tensor, `has ${tensor.byteLength} bytes; at most ${MAX_STATE_BYTES} are read`);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(tensors.read(tensor)).toString("utf8"));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw mismatch(tensor, "is not JSON");
  }
  const parsed = stateSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw mismatch(tensor, `is no quant_state of NF4 (${issue?.path.join(".") || "the whole"}: ${issue?.message})`);
}

/** The levels of rows of nf4: `kNormalFloat4` in native/backend/format.h. */
const NORMAL_FLOAT4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];
