import { encodeSafetensorsHeader, readSafetensorsFrom } from "../../dist/checkpoint/safetensors.js";
import { checkTensors, memoryFile } from "./shared/memory-file.mjs";

const tensors = [
  { name: "a.weight", dtype: "F32", shape: [2, 3], offset: 0, byteLength: 24 },
  { name: "b", dtype: "BF16", shape: [5], offset: 24, byteLength: 10 },
  { name: "c", dtype: "U8", shape: [], offset: 34, byteLength: 1 },
];
const data = Buffer.alloc(35, 7);

export const seeds = [
  Buffer.concat([encodeSafetensorsHeader(tensors, 8, { format: "pt" }), data]),
  Buffer.concat([encodeSafetensorsHeader(tensors, 64), data]),
  encodeSafetensorsHeader([], 8),
];

export const tokens = [
  '"__metadata__":{"a":"b"},',
  '"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},',
  '"data_offsets":[0,',
  '"shape":[9007199254740993,',
  "1e999",
  "-1",
  "[".repeat(100),
  "\\ud800",
  "\xff\xfe",
];

export async function run(bytes) {
  const header = await readSafetensorsFrom(memoryFile(bytes));
  checkTensors(header.tensors, bytes.length);
}
