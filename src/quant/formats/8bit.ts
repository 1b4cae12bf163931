import { blockFormat, SCALE_BYTES } from "../format.js";

/** Symmetric int8 codes. */
export const eightBit = blockFormat("8bit", {
  bits: 8,
  groupBytes: SCALE_BYTES,
  block: 64,
  rule: "powerOfTwo",
  padding: "block",
});
