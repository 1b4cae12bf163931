import { ggmlFormat } from "../format.js";

/** ggml's block_q4_0. */
export const q4Zero = ggmlFormat("q4_0", 4, 2, 32);
