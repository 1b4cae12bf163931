import { integerFormat } from "../format.js";

/** Of AWQ, GPTQ and compressed-tensors at 4 bits. */
export const uint4 = integerFormat("uint4", 4);
