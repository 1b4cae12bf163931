/** Fixtures of quantized checkpoints, changed or opened matrix by matrix, and rows of packed formats read as documented. */
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { openCheckpoint } from "../../dist/checkpoint/checkpoint.js";
import { type AssignedTensor, assignTensors } from "../../dist/models/assignment.js";
import { architectureOf } from "../../dist/models/registry.js";
import type { WeightFormat } from "../../dist/native/types.js";
import { encodeSafetensors, type TensorData, type Tensors } from "./checkpoint.js";
import { quantizedFixtures } from "./golden.js";

type Json = Record<string, unknown>;

/** A copy of the fixture in `directory` whose tensors and config.json `edit` has changed. */
export function editFixture(name: string, directory: string, edit: (tensors: Tensors, config: Json) => void): string {
  const source = path.join(quantizedFixtures, name);
  const target = path.join(directory, name);
  mkdirSync(target, { recursive: true });
  for (const file of readdirSync(source)) cpSync(path.join(source, file), path.join(target, file));
  const tensors = readTensors(path.join(source, "model.safetensors"));
  const config = JSON.parse(readFileSync(path.join(source, "config.json"), "utf8")) as Json;
  edit(tensors, config);
  writeFileSync(path.join(target, "model.safetensors"), encodeSafetensors(tensors));
  writeFileSync(path.join(target, "config.json"), JSON.stringify(config));
  return target;
}

function readTensors(file: string): Tensors {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__: _, ...header } = JSON.parse(bytes.toString("utf8", 8, start)) as Record<
    string,
    Pick<TensorData, "dtype" | "shape"> & { data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => [name, { dtype, shape, bytes: Buffer.from(bytes.subarray(start + begin, start + end)) }],
    ),
  );
}

/** All tensors that a store of the checkpoint would have. */
export async function assignedTensors(directory: string): Promise<AssignedTensor[]> {
  const checkpoint = await openCheckpoint(directory);
  const { layers } = assignTensors(checkpoint, architectureOf(checkpoint.config, checkpoint.configFile));
  return layers.flatMap(({ stages }) => stages.flatMap(({ tensors }) => tensors));
}

const NORMAL_FLOAT4 = [
  -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
];
const FLOAT4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const BITS: Partial<Record<WeightFormat, number>> = { uint2: 2, uint3: 3, uint4: 4, uint8: 8, mxfp4: 4, nf4: 4 };

/** Weights of one row, as native/backend/format.h describes it. */
export function decodeRow(format: WeightFormat, block: number, columns: number, row: Uint8Array): Float32Array {
  const view = new DataView(row.buffer, row.byteOffset, row.byteLength);
  const groups = Math.ceil(columns / block);
  const codeBytes = format === "fp8" ? columns : Math.ceil(columns / 64) * 8 * (BITS[format] as number);
  return Float32Array.from({ length: columns }, (_, column) => {
    const code = codeAt(format, row, column);
    const group = Math.floor(column / block);
    if (format === "fp8") return e4m3(code) * view.getFloat32(codeBytes + 4 * group, true);
    if (format === "nf4") return (NORMAL_FLOAT4[code] as number) * view.getFloat32(codeBytes + 4 * group, true);
    if (format === "mxfp4") {
      const value = (FLOAT4[code & 7] as number) * (code & 8 ? -1 : 1);
      return value * 2 ** ((row[codeBytes + group] as number) - 127);
    }
    const scale = half(view.getUint16(codeBytes + 2 * group, true));
    return (code - (row[codeBytes + 2 * groups + group] as number)) * scale;
  });
}

function codeAt(format: WeightFormat, row: Uint8Array, column: number): number {
  const [step, i] = [Math.floor(column / 64), column % 64];
  const byte = (offset: number) => row[offset] as number;
  const pair = (start: number) => (byte(start + (i % 16)) >> (2 * Math.floor(i / 16))) & 3;
  switch (format) {
    case "uint2":
      return pair(16 * step);
    case "uint3":
      return pair(24 * step) | (((byte(24 * step + 16 + Math.floor(i / 8)) >> (i % 8)) & 1) << 2);
    case "uint8":
    case "fp8":
      return byte(column);
    default:
      return (byte(32 * step + 16 * Math.floor(i / 32) + (i % 16)) >> (4 * (Math.floor(i / 16) % 2))) & 15;
  }
}

function e4m3(code: number): number {
  const [sign, exponent, mantissa] = [code & 0x80 ? -1 : 1, (code >> 3) & 15, code & 7];
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return sign * (exponent === 0 ? (mantissa / 8) * 2 ** -6 : (1 + mantissa / 8) * 2 ** (exponent - 7));
}

function half(bits: number): number {
  const [sign, exponent, mantissa] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1 + mantissa / 1024) * 2 ** (exponent - 15));
}
