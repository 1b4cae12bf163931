import { ggmlFormat } from "../format.js";

/** ggml's block_q2_K. */
export const q2K = ggmlFormat("q2_k", 2, 20, 256);
