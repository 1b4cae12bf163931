import { integerFormat } from "../format.js";

/** Of GPTQ at 2 bits. */
export const uint2 = integerFormat("uint2", 2);
