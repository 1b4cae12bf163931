/** Tensors of safetensors files in float64, and where an architecture's tensors lie in them: element by element. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { type Stage, type TensorSource, type TensorSpec, tensorName } from "../../dist/models/architecture.js";
import { halfToNumber } from "./weight-format.js";

export interface Tensor {
  shape: readonly number[];
  values: Float64Array;
}

export type Tensors = ReadonlyMap<string, Tensor>;

/** All tensors of a checkpoint in safetensors files. */
export function readTensors(directory: string): Tensors {
  const shards = readdirSync(directory).filter((file) => /^model.*\.safetensors$/.test(file));
  return new Map(shards.flatMap((file) => [...readSafetensors(path.join(directory, file))]));
}

export function readSafetensors(file: string): Tensors {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Tensor>();
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    tensors.set(name, { shape, values: decodeElements(dtype, bytes.subarray(start + offsets[0], start + offsets[1])) });
  }
  return tensors;
}

function decodeElements(dtype: string, data: Buffer): Float64Array {
  const readers: Record<string, (i: number) => number> = {
    F32: (i) => data.readFloatLE(i * 4),
    BF16: (i) => new Float32Array(Uint32Array.of(data.readUInt16LE(i * 2) << 16).buffer)[0] as number,
    F16: (i) => halfToNumber(data.readUInt16LE(i * 2)),
  };
  const read = readers[dtype];
  if (read === undefined) throw new Error(`dtype ${dtype}`);
  return Float64Array.from({ length: data.length / (dtype === "F32" ? 4 : 2) }, (_, i) => read(i));
}

/** The tensor that `spec` means in one stage: taken from the first source that is there. */
export function resolveTensor(tensors: Tensors, spec: TensorSpec, { layer, expert }: Stage): Tensor {
  const sources = spec.sources ?? [{ name: spec.name, shape: spec.shape }];
  const source = sources.find((candidate) => tensors.has(tensorName(candidate, layer, expert)));
  const stored = source && tensors.get(tensorName(source, layer, expert));
  if (!source || !stored) throw new Error(`${spec.name} is missing in layer ${layer}`);
  const rows = takeRows(source, stored, expert ?? 0);
  const values =
    spec.derive === "inverseRowNorm"
      ? rows.map((row) => Math.fround(1 / Math.max(Math.hypot(...row), 1e-12)))
      : rows.flatMap((row) => [...row]);
  const shape = spec.derive || spec.shape.length === 1 ? [values.length] : [rows.length, rows[0]?.length ?? 0];
  return { shape, values: Float64Array.from(values, (value) => value + (spec.add ?? 0)) };
}

/** The source's rows in the order in which the tensor has them; those of a vector have one element. */
function takeRows(source: TensorSource, { shape, values }: Tensor, expert: number): number[][] {
  const [length = 0, columns = 1] = source.shape;
  const matrix = source.transposed ? [columns, length] : [...source.shape];
  const expected = source.experts === undefined ? matrix : [source.experts, ...matrix];
  if (shape.join() !== expected.join()) throw new Error(`${source.name}: [${shape}] is not [${expected}]`);
  const start = source.experts === undefined ? 0 : expert * length * columns;
  const element = (row: number, column: number) =>
    values[start + (source.transposed ? column * length + row : row * columns + column)] as number;
  const { transposedGroups: groups, rows: view = { offset: 0, dims: [[length, 1]] } } = source;
  if (groups) {
    const count = length / groups.stride;
    return Array.from({ length: count * columns }, (_, row) => {
      const first = Math.floor(row / columns) * groups.stride;
      return Array.from({ length: groups.rows }, (_, column) => element(first + column, row % columns));
    });
  }
  return viewedRows(view).map((row) => Array.from({ length: columns }, (_, column) => element(row, column)));
}

function viewedRows({ offset, dims }: NonNullable<TensorSource["rows"]>): number[] {
  return dims.reduce<number[]>(
    (rows, [count, stride]) => rows.flatMap((row) => Array.from({ length: count }, (_, i) => row + i * stride)),
    [offset],
  );
}
