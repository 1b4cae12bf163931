import { blockFormat } from "../format.js";

/** NormalFloat4 codes with float32 scales, of bitsandbytes. */
export const nf4 = blockFormat("nf4", { bits: 4, groupBytes: 4, block: 64, rule: "fixed", padding: 64 });
