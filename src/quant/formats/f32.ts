import { elementFormat } from "../format.js";

export const f32 = elementFormat("f32", "F32", 4);
