import { elementFormat } from "../format.js";

export const f16 = elementFormat("f16", "F16", 2);
