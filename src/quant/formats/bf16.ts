import { elementFormat } from "../format.js";

export const bf16 = elementFormat("bf16", "BF16", 2);
