/** Types of tensors in GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). */

export interface GgmlType {
  name: string;
  /** As `CheckpointTensor.dtype`: a plain element type, or GGUF_ and the name of the blocks. */
  dtype: string;
  /** Elements of a block; rows consist of whole blocks. */
  blockElements: number;
  blockBytes: number;
}

const plain = (name: string, bytes: number): GgmlType => ({
  name,
  dtype: name,
  blockElements: 1,
  blockBytes: bytes,
});

const blocks = (name: string, blockElements: number, blockBytes: number): GgmlType => ({
  name,
  dtype: `GGUF_${name}`,
  blockElements,
  blockBytes,
});

/** By the number that stands in the file. */
const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map([
  [0, plain("F32", 4)],
  [1, plain("F16", 2)],
  [30, plain("BF16", 2)],
  [2, blocks("Q4_0", 32, 18)],
  [3, blocks("Q4_1", 32, 20)],
  [6, blocks("Q5_0", 32, 22)],
  [7, blocks("Q5_1", 32, 24)],
  [8, blocks("Q8_0", 32, 34)],
  [10, blocks("Q2_K", 256, 84)],
  [11, blocks("Q3_K", 256, 110)],
  [12, blocks("Q4_K", 256, 144)],
  [13, blocks("Q5_K", 256, 176)],
  [14, blocks("Q6_K", 256, 210)],
]);

/** Those that exist and that layerstream does not compute with. */
const OTHER_TYPES: ReadonlyMap<number, string> = new Map([
  [9, "Q8_1"],
  [15, "Q8_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [20, "IQ4_NL"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [29, "IQ1_M"],
  [31, "Q4_0_4_4"],
  [32, "Q4_0_4_8"],
  [33, "Q4_0_8_8"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [36, "IQ4_NL_4_4"],
  [37, "IQ4_NL_4_8"],
  [38, "IQ4_NL_8_8"],
  [39, "MXFP4"],
  [40, "NVFP4"],
]);

export const SUPPORTED_GGML_TYPES: readonly string[] = [...GGML_TYPES.values()].map(({ name }) => name);

/** Undefined for a number that layerstream does not read. */
export function ggmlTypeOf(type: number): GgmlType | undefined {
  return GGML_TYPES.get(type);
}

/** The name of a type that exists but is not supported. */
export function otherGgmlTypeName(type: number): string | undefined {
  return OTHER_TYPES.get(type);
}
