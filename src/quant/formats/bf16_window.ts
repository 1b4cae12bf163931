import type { Format } from "../format.js";

const STEP_COLUMNS = 64;
/** Of 64 weights: a byte of sign and mantissa and three bits of exponent each. */
const STEP_BYTES = 88;
const WINDOW_COLUMNS = 512;
const HEADER_BYTES = 3;
const MAX_ESCAPES = 65535;

/**
 * bfloat16 exactly: exponents are three bits relative to the least of a window of 512 columns. `block` is the room, in
 * bytes, for the exponents of a row that lie outside their window.
 */
export const bf16Window: Format = {
  name: "bf16_window",
  dtype: "U8",
  block: 1,
  bitsPerWeight: (STEP_BYTES * 8) / STEP_COLUMNS,
  blockFits: (columns, block) => block !== undefined && block >= 1 && block <= Math.min(columns, MAX_ESCAPES),
  rowBytes: (columns, block = 1) =>
    block + Math.ceil(columns / WINDOW_COLUMNS) * HEADER_BYTES + Math.ceil(columns / STEP_COLUMNS) * STEP_BYTES,
};
