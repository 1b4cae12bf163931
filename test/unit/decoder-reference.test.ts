import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { type Architecture, type PlanOp, type Register, tensorName } from "../../dist/models/architecture.js";
import { architectureOf } from "../../dist/models/registry.js";
import { ropeFrequencies } from "../../dist/models/rope.js";

/** Executes plans in float64, one loop an op, and compares with the logits of transformers: plans mean what they should. */

const fixtures = path.resolve(import.meta.dirname, "../fixtures/families");

interface Tensor {
  shape: number[];
  values: Float64Array;
}

type Registers = Map<Register, Float64Array>;

describe("plans, executed in float64", () => {
  const cases = readdirSync(fixtures, { withFileTypes: true }).filter((entry) => entry.isDirectory());

  it.each(cases.map((entry) => entry.name))("%s gives the logits and greedy tokens of transformers", (name) => {
    const directory = path.join(fixtures, name);
    const architecture = architectureOf(readJson(path.join(directory, "config.json")), name);
    const shards = readdirSync(directory).filter((file) => /^model.*\.safetensors$/.test(file));
    const weights = new Map(shards.flatMap((file) => [...readSafetensors(path.join(directory, file))]));
    const { input_ids: ids, greedy } = readJson(path.join(directory, "expected.json")) as {
      input_ids: number[];
      greedy: number[];
    };
    const expected = at(readSafetensors(path.join(directory, "expected.safetensors")), "logits").values;

    const logits = forward(architecture, weights, ids);
    expect(logits.length).toBe(expected.length);
    const scale = expected.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    const difference = logits.reduce((max, value, i) => Math.max(max, Math.abs(value - (expected[i] ?? 0))), 0);
    expect(difference / scale).toBeLessThan(1e-4);

    const sequence = [...ids];
    for (const token of greedy) {
      const last = forward(architecture, weights, sequence).subarray(-architecture.vocabSize);
      expect(last.indexOf(Math.max(...last))).toBe(token);
      sequence.push(token);
    }
  });

  it("has fixtures to check", () => {
    expect(cases.length).toBeGreaterThan(10);
  });
});

function forward(
  architecture: Architecture,
  weights: ReadonlyMap<string, Tensor>,
  ids: readonly number[],
): Float64Array {
  const width = architecture.hiddenSize;
  const registers: Registers = new Map();
  for (const [name, size] of Object.entries(architecture.registers)) {
    registers.set(name as Register, new Float64Array(ids.length * size));
  }
  const embedding = at(weights, architecture.embeddingTensor).values;
  ids.forEach((id, t) => {
    at(registers, "hidden").set(embedding.subarray(id * width, (id + 1) * width), t * width);
  });
  for (const stage of architecture.layers.flatMap((layer) => layer.stages)) {
    const kind = architecture.kinds[stage.kind];
    if (kind === undefined) throw new Error(`no kind ${stage.kind}`);
    const tensors = kind.tensors.map((spec) => {
      const tensor = at(weights, tensorName(spec, stage.layer));
      expect(tensor.shape, spec.name).toEqual(spec.shape);
      return tensor;
    });
    for (const op of kind.plan) execute(op, architecture, registers, tensors, ids.length);
  }
  return at(registers, "logits");
}

function execute(
  op: PlanOp,
  architecture: Architecture,
  registers: Registers,
  tensors: Tensor[],
  tokens: number,
): void {
  switch (op.op) {
    case "rmsNorm":
      rmsNorm(op, at(registers, op.input), at(registers, op.output), tensors[op.weight] as Tensor);
      break;
    case "matmul":
      matmul(op, at(registers, op.input), at(registers, op.output), tensors);
      break;
    case "rope":
      rope(op, architecture, at(registers, op.target), tokens);
      break;
    case "attention":
      registers.set(op.query, attention(op, registers, tokens));
      break;
    case "gatedActivation": {
      const up = at(registers, op.up);
      at(registers, op.gate).forEach((x, i, gate) => {
        gate[i] = (x / (1 + Math.exp(-x))) * (up[i] as number);
      });
    }
  }
}

type Op<Name extends PlanOp["op"]> = Extract<PlanOp, { op: Name }>;

function rmsNorm({ width, epsilon }: Op<"rmsNorm">, input: Float64Array, output: Float64Array, weight: Tensor): void {
  for (let start = 0; start < input.length; start += width) {
    const group = input.slice(start, start + width);
    const scale = 1 / Math.sqrt(group.reduce((sum, x) => sum + x * x, 0) / width + epsilon);
    group.forEach((x, i) => {
      output[start + i] = x * scale * (weight.values[i] as number);
    });
  }
}

function matmul(op: Op<"matmul">, input: Float64Array, output: Float64Array, tensors: Tensor[]): void {
  const { values, shape } = tensors[op.weight] as Tensor;
  const [rows, columns] = shape as [number, number];
  const bias = op.bias === undefined ? undefined : (tensors[op.bias] as Tensor).values;
  for (let t = 0; t < input.length / columns; t++) {
    for (let row = 0; row < rows; row++) {
      let sum = bias?.[row] ?? 0;
      for (let c = 0; c < columns; c++)
        sum += (input[t * columns + c] as number) * (values[row * columns + c] as number);
      output[t * rows + row] = (op.accumulate ? (output[t * rows + row] as number) : 0) + sum;
    }
  }
}

function rope(op: Op<"rope">, architecture: Architecture, target: Float64Array, tokens: number): void {
  const spec = architecture.ropes[op.table];
  if (spec === undefined) throw new Error(`no rope table ${op.table}`);
  const { inverseFrequencies, attentionFactor } = ropeFrequencies(spec, tokens);
  const half = op.rotaryDim / 2;
  for (let head = 0; head < tokens * op.heads; head++) {
    const position = Math.floor(head / op.heads);
    for (let i = 0; i < half; i++) {
      const angle = position * (inverseFrequencies[i] as number);
      const [cosine, sine] = [Math.cos(angle) * attentionFactor, Math.sin(angle) * attentionFactor];
      const [x, y] = [head * op.headDim + i, head * op.headDim + i + half];
      const [a, b] = [target[x] as number, target[y] as number];
      target[x] = a * cosine - b * sine;
      target[y] = b * cosine + a * sine;
    }
  }
}

function attention(op: Op<"attention">, registers: Registers, tokens: number): Float64Array {
  const [query, key, value] = [at(registers, op.query), at(registers, op.key), at(registers, op.value)];
  const { heads, kvHeads, headDim } = op;
  const output = new Float64Array(query.length);
  for (let t = 0; t < tokens; t++) {
    const first = op.window === undefined ? 0 : Math.max(0, t - op.window + 1);
    for (let head = 0; head < heads; head++) {
      const q = query.subarray((t * heads + head) * headDim, (t * heads + head + 1) * headDim);
      const kvHead = Math.floor(head / (heads / kvHeads));
      const rowOf = (data: Float64Array, s: number) =>
        data.subarray((s * kvHeads + kvHead) * headDim, (s * kvHeads + kvHead + 1) * headDim);
      const visible = Array.from({ length: t - first + 1 }, (_, i) => first + i);
      const scores = visible.map((s) => rowOf(key, s).reduce((sum, k, i) => sum + k * (q[i] as number), 0) * op.scale);
      const exponentials = scores.map((score) => Math.exp(score - Math.max(...scores)));
      const total = exponentials.reduce((sum, x) => sum + x, 0);
      visible.forEach((s, i) => {
        rowOf(value, s).forEach((v, d) => {
          const index = (t * heads + head) * headDim + d;
          output[index] = (output[index] as number) + ((exponentials[i] as number) / total) * v;
        });
      });
    }
  }
  return output;
}

function at<Key, Value>(map: ReadonlyMap<Key, Value>, key: Key): Value {
  const value = map.get(key);
  if (value === undefined) throw new Error(`${String(key)} is missing`);
  return value;
}

function readJson(file: string): unknown {
  return JSON.parse(readFileSync(file, "utf8"));
}

function readSafetensors(file: string): Map<string, Tensor> {
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const entries = Object.entries(header).filter(([name]) => name !== "__metadata__");
  return new Map(
    entries.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        const data = bytes.subarray(start + from, start + to);
        return [name, { shape, values: decodeElements(dtype, data) }];
      },
    ),
  );
}

function decodeElements(dtype: string, data: Buffer): Float64Array {
  const read: Record<string, (i: number) => number> = {
    F32: (i) => data.readFloatLE(i * 4),
    BF16: (i) => new Float32Array(Uint32Array.of(data.readUInt16LE(i * 2) << 16).buffer)[0] as number,
    F16: (i) => halfToNumber(data.readUInt16LE(i * 2)),
  };
  const element = read[dtype];
  if (element === undefined) throw new Error(`dtype ${dtype}`);
  return Float64Array.from({ length: data.length / (dtype === "F32" ? 4 : 2) }, (_, i) => element(i));
}

function halfToNumber(bits: number): number {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
}
