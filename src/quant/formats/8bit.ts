import { blockFormat } from "../format.js";

/** Symmetric int8 codes. */
export const eightBit = blockFormat("8bit", 8, 64);
