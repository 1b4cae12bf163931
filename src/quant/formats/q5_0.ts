import { ggmlFormat } from "../format.js";

/** ggml's block_q5_0. */
export const q5Zero = ggmlFormat("q5_0", 5, 2, 32);
