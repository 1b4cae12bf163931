import { ggmlFormat } from "../format.js";

/** ggml's block_q4_K. */
export const q4K = ggmlFormat("q4_k", 4, 16, 256);
