import { blockFormat } from "../format.js";

/** E2M1 codes with power-of-two scales (OCP Microscaling Formats), of gpt-oss. */
export const mxfp4 = blockFormat("mxfp4", { bits: 4, groupBytes: 1, block: 32, rule: "fixed", padding: 64 });
