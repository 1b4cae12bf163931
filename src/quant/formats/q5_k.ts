import { ggmlFormat } from "../format.js";

/** ggml's block_q5_K. */
export const q5K = ggmlFormat("q5_k", 5, 16, 256);
