import { blockFormat } from "../format.js";

/** E4M3 codes (OCP 8-bit Floating Point) with float32 scales, of DeepSeek, FP8 and compressed-tensors checkpoints. */
export const fp8 = blockFormat("fp8", { bits: 8, groupBytes: 4, block: 128, rule: "multiple", padding: 1 });
