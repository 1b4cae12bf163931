import { integerFormat } from "../format.js";

/** Of GPTQ and compressed-tensors at 8 bits. */
export const uint8 = integerFormat("uint8", 8);
