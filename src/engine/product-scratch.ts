/** Memory of the products of prompts in fast precision, as native/cpu/vnni/matrix_vnni.cc lays it out. */
import { BLOCK_TOKENS } from "./activations.js";

const GROUP_COLUMNS = 128;
/** A token's integers of a group and their scales, of which there are at most four. */
const TOKEN_GROUP_BYTES = GROUP_COLUMNS * 2 + 4 * 4;
/** A panel's integers and scales of a group, and a decoded row's weights. */
const PANEL_GROUP_BYTES = 11 * 1792 + GROUP_COLUMNS * 4;
/** Running sums of a panel's rows for a token. */
const TOKEN_SUM_BYTES = 80 * 4;
/** Memory comes in huge pages. */
const PAGE_BYTES = 2 ** 21;

/** Prepared activations of the longest block of tokens, and the scratch of each thread, for matrices of so many columns. */
export function productScratchBytes(columns: number, threads: number): number {
  const groups = Math.ceil(columns / GROUP_COLUMNS);
  const thread = groups * PANEL_GROUP_BYTES + BLOCK_TOKENS * TOKEN_SUM_BYTES;
  return BLOCK_TOKENS * groups * TOKEN_GROUP_BYTES + threads * thread + (threads + 1) * PAGE_BYTES;
}
