import {
  checkDtype,
  checkShape,
  mismatch,
  type PackedMatrix,
  type QuantMethod,
  requireTensor,
  type TensorInfo,
  type TensorTable,
} from "./method.js";

const BLOCK = 32;

/**
 * MXFP4 as gpt-oss stores its experts: `<name>_blocks` U8 [experts, rows, columns / 32, 16], the low nibble first, and
 * `<name>_scales` U8 [experts, rows, columns / 32], exponents with a bias of 127.
 */
export function mxfp4(): QuantMethod {
  return {
    name: "mxfp4",
    matrix(name, tensors) {
      const codes = tensors.get(`${name}_blocks`);
      return codes && describe(name, codes, tensors);
    },
  };
}

function describe(name: string, codes: TensorInfo, tensors: TensorTable): PackedMatrix {
  const scales = requireTensor(tensors, `${name}_scales`, codes);
  checkDtype(codes, "U8");
  checkDtype(scales, "U8");
  const [experts = 0, rows = 0, groups = 0, bytes = 0, ...others] = codes.shape;
  if (bytes !== BLOCK / 2 || others.length > 0 || experts * rows * groups === 0) {
    throw mismatch(codes, `has shape [${codes.shape.join(", ")}], which must be [experts, rows, blocks, ${BLOCK / 2}]`);
  }
  checkShape(scales, [experts, rows, groups], "its blocks");
  return {
    method: "mxfp4",
    rows,
    columns: groups * BLOCK,
    experts,
    parts: { codes, scales },
    described: [],
    parameters: { groups },
    holding: { format: "mxfp4", block: BLOCK },
  };
}
