import { blockFormat } from "../format.js";

/** NormalFloat4 codes, as in QLoRA (Dettmers et al., 2023). The kernels fix the block at 64 columns. */
export const fourBit = blockFormat("4bit", 4, 64);
