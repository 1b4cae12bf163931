import { blockFormat, SCALE_BYTES } from "../format.js";

/** NormalFloat4 codes, as in QLoRA (Dettmers et al., 2023). The kernels fix the block at 64 columns. */
export const fourBit = blockFormat("4bit", { bits: 4, groupBytes: SCALE_BYTES, block: 64, rule: "fixed", padding: 64 });
