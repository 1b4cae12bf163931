import { ggmlFormat } from "../format.js";

/** ggml's block_q8_0. */
export const q8Zero = ggmlFormat("q8_0", 8, 2, 32);
