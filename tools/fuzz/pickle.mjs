import { readFileSync } from "node:fs";
import { readPyTorchIndex } from "../../dist/checkpoint/pytorch/pytorch-file.js";
import { checkTensors, memoryFile } from "./shared/memory-file.mjs";
import { pick } from "./shared/mutate.mjs";

const fixtures = new URL("../../test/fixtures/pytorch/", import.meta.url);
export const seeds = ["zip.bin", "legacy.bin", "zip-protocol-4.bin"].map((name) =>
  readFileSync(new URL(name, fixtures)),
);
const [zip, legacy] = seeds;

const NAMES = [
  "ctorch._utils\n_rebuild_tensor_v2\n",
  "ctorch._utils\n_rebuild_tensor_v3\n",
  "ctorch._utils\n_rebuild_parameter\n",
  "ctorch._tensor\n_rebuild_from_type_v2\n",
  "ccollections\nOrderedDict\n",
  "ctorch\nFloatStorage\n",
  "ctorch.storage\nUntypedStorage\n",
  "ctorch\nSize\n",
  "ctorch\nfloat16\n",
];
const OPERATIONS = [..."()]}tNQRbsuaeJKMGXU.0o\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95"];
const VALUES = [
  "K\x01",
  "M\xff\xff",
  "J\xff\xff\xff\xff",
  `\x8a\x08${"\xff".repeat(7)}\x7f`,
  "X\x07\0\0\0storage",
  "X\x01\0\0\x000",
  "q\0",
  "h\0",
  "q\x01",
  "h\x01",
];

export const tokens = [
  ...NAMES,
  ...OPERATIONS,
  ...VALUES,
  "cos\nsystem\n",
  "PK\x01\x02",
  "PK\x05\x06",
  "PK\x06\x06",
  "PK\x06\x07",
  "../",
];

/** A random program in the place of the pickle of a file. */
export function generate(random) {
  const parts = [];
  for (let i = random(200); i > 0; i--) parts.push(pick(pick([NAMES, OPERATIONS, VALUES], random), random));
  const program = Buffer.from(`\x80\x02${parts.join("")}.`, "latin1");
  if (random(2) === 0) {
    const start = zip.indexOf(Buffer.from([0x80, 2]));
    const bytes = Buffer.from(zip);
    program.copy(bytes, start, 0, Math.min(program.length, zip.indexOf("PK", start) - start));
    return bytes;
  }
  const start = legacy.indexOf(Buffer.from([0x80, 2]), legacy.indexOf("long"));
  return Buffer.concat([legacy.subarray(0, start), program, legacy.subarray(start)]);
}

export async function run(bytes) {
  const index = await readPyTorchIndex(memoryFile(bytes));
  checkTensors(index.tensors, bytes.length);
}
