import { ggmlFormat } from "../format.js";

/** ggml's block_q4_1. */
export const q4One = ggmlFormat("q4_1", 4, 4, 32);
