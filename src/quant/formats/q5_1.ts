import { ggmlFormat } from "../format.js";

/** ggml's block_q5_1. */
export const q5One = ggmlFormat("q5_1", 5, 4, 32);
