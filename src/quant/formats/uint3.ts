import { integerFormat } from "../format.js";

/** Of GPTQ at 3 bits. */
export const uint3 = integerFormat("uint3", 3);
