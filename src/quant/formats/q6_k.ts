import { ggmlFormat } from "../format.js";

/** ggml's block_q6_K. */
export const q6K = ggmlFormat("q6_k", 6, 18, 256);
