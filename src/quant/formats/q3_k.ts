import { ggmlFormat } from "../format.js";

/** ggml's block_q3_K. */
export const q3K = ggmlFormat("q3_k", 3, 14, 256);
