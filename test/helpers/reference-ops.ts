/** Every op of a plan in float64, one plain loop each, written from the definitions in `models/architecture.ts`. */
import type { ActivationName, PlanOp, Register, RopeSpec } from "../../dist/models/architecture.js";
import { ropeFrequencies } from "../../dist/models/rope.js";
import type { Tensor } from "./reference-tensors.js";

/** One row a token. */
export interface RegisterRows {
  width: number;
  rows: Float64Array[];
}

export type Registers = Map<Register, RegisterRows>;

/** What a stage executes with. */
export interface StageContext {
  registers: Registers;
  tensors: readonly Tensor[];
  ropes: readonly RopeSpec[];
  tokens: number;
}

type Op<Name extends PlanOp["op"]> = Extract<PlanOp, { op: Name }>;

export function execute(op: Exclude<PlanOp, Op<"route">>, context: StageContext): void {
  if (op.op === "norm") norm(op, context);
  else if (op.op === "matmul") matmul(op, context);
  else if (op.op === "rope") rope(op, context);
  else if (op.op === "attention") attention(op, context);
  else if (op.op === "activation") activate(op, context);
  else if (op.op === "scaleTokens") scaleTokens(op, context);
  else softCap(op, context);
}

function norm(op: Op<"norm">, context: StageContext): void {
  const { width, groups } = op;
  const weight = valuesOf(context, op.weight);
  const bias = op.bias === undefined ? undefined : valuesOf(context, op.bias);
  const output = rowsOf(context, op.output);
  rowsOf(context, op.input).forEach((input, t) => {
    const row = output[t] as Float64Array;
    for (let group = 0; group < groups; group++) {
      const x = input.slice(group * width, (group + 1) * width);
      const mean = op.centered ? x.reduce((sum, value) => sum + value, 0) / width : 0;
      const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
      x.forEach((value, i) => {
        const result = ((value - mean) / Math.sqrt(variance + op.epsilon)) * (weight[i] as number) + (bias?.[i] ?? 0);
        const index = group * width + i;
        row[index] = result + (op.accumulate ? (row[index] as number) : 0);
      });
    }
  });
}

function matmul(op: Op<"matmul">, context: StageContext): void {
  const { shape, values } = context.tensors[op.weight] as Tensor;
  const [count = 0, columns = 0] = shape;
  const bias = op.bias === undefined ? undefined : valuesOf(context, op.bias);
  const rowScale = op.rowScale === undefined ? undefined : valuesOf(context, op.rowScale);
  const { scale = 1, inputOffset = 0, outputOffset = 0 } = op;
  const groups = op.groups ?? { rows: count, inputStride: 0, outputStride: 0 };
  const output = rowsOf(context, op.output);
  rowsOf(context, op.input).forEach((input, t) => {
    const row = output[t] as Float64Array;
    for (let r = 0; r < count; r++) {
      const group = Math.floor(r / groups.rows);
      const from = inputOffset + group * groups.inputStride;
      let sum = 0;
      for (let c = 0; c < columns; c++) sum += (input[from + c] as number) * (values[r * columns + c] as number);
      const result = (sum * (rowScale?.[r] ?? 1) + (bias?.[r] ?? 0)) * scale;
      const index = outputOffset + group * groups.outputStride + (r % groups.rows);
      row[index] = result + (op.accumulate ? (row[index] as number) : 0);
    }
  });
}

function rope(op: Op<"rope">, context: StageContext): void {
  const spec = context.ropes[op.table];
  if (spec === undefined) throw new Error(`no rope table ${op.table}`);
  const { inverseFrequencies, attentionFactor } = ropeFrequencies(spec, context.tokens);
  const half = op.rotaryDim / 2;
  rowsOf(context, op.target).forEach((row, position) => {
    for (let head = 0; head < op.heads; head++) {
      for (let i = 0; i < half; i++) {
        const angle = position * (inverseFrequencies[i] as number);
        const [cosine, sine] = [Math.cos(angle) * attentionFactor, Math.sin(angle) * attentionFactor];
        const first = head * op.headDim + op.offset;
        const [x, y] = op.interleaved ? [first + 2 * i, first + 2 * i + 1] : [first + i, first + i + half];
        const [a, b] = [row[x] as number, row[y] as number];
        row[x] = a * cosine - b * sine;
        row[y] = b * cosine + a * sine;
      }
    }
  });
}

function attention(op: Op<"attention">, context: StageContext): void {
  const { heads, kvHeads, headDim, valueDim } = op;
  const queries = rowsOf(context, op.query).map((row) => row.slice());
  const keys = rowsOf(context, op.key);
  const values = rowsOf(context, op.value ?? op.key);
  const valueStride = op.value === undefined ? headDim : valueDim;
  const sinks = op.sinks === undefined ? undefined : valuesOf(context, op.sinks);
  rowsOf(context, op.output).forEach((output, t) => {
    const first = op.window === undefined ? 0 : Math.max(0, t - op.window + 1);
    const visible = Array.from({ length: t - first + 1 }, (_, i) => first + i);
    const stretch =
      op.lognLength !== undefined && t + 1 > op.lognLength ? Math.log(t + 1) / Math.log(op.lognLength) : 1;
    for (let head = 0; head < heads; head++) {
      const q = (queries[t] as Float64Array).subarray(head * headDim, (head + 1) * headDim);
      const kvHead = Math.floor(head / (heads / kvHeads));
      const scores = visible.map((s) => {
        const k = (keys[s] as Float64Array).subarray(kvHead * headDim, (kvHead + 1) * headDim);
        const score = op.scale * stretch * q.reduce((sum, value, i) => sum + value * (k[i] as number), 0);
        const capped = op.softCap === undefined ? score : op.softCap * Math.tanh(score / op.softCap);
        return capped + (op.alibiSlopes?.[head] ?? 0) * (s - t);
      });
      const largest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - largest));
      const sink = sinks === undefined ? 0 : Math.exp((sinks[head] as number) - largest);
      const total = weights.reduce((sum, weight) => sum + weight, sink);
      for (let d = 0; d < valueDim; d++) {
        output[head * valueDim + d] = visible.reduce((sum, s, i) => {
          return sum + ((weights[i] as number) / total) * (values[s]?.[kvHead * valueStride + d] as number);
        }, 0);
      }
    }
  });
}

function activate(op: Op<"activation">, context: StageContext): void {
  const up = op.up && rowsOf(context, op.up);
  rowsOf(context, op.gate).forEach((row, t) => {
    for (let i = 0; i < op.width; i++) {
      const gate = row[i] as number;
      if (op.activation === "clampedSwiglu") {
        const { alpha = Number.NaN, limit = Number.NaN } = op;
        const clampedGate = Math.min(gate, limit);
        const clampedUp = Math.min(Math.max(up?.[t]?.[i] as number, -limit), limit);
        row[i] = (clampedUp + 1) * clampedGate * sigmoid(alpha * clampedGate);
      } else {
        row[i] = ACTIVATIONS[op.activation](gate) * (up ? (up[t]?.[i] as number) : 1);
      }
    }
  });
}

function scaleTokens(op: Op<"scaleTokens">, context: StageContext): void {
  const factors = rowsOf(context, op.factor);
  rowsOf(context, op.target).forEach((row, t) => {
    const factor = sigmoid(factors[t]?.[0] as number);
    for (let i = 0; i < op.width; i++) row[i] = (row[i] as number) * factor;
  });
}

function softCap(op: Op<"softCap">, context: StageContext): void {
  for (const row of rowsOf(context, op.target)) {
    for (let i = 0; i < op.width; i++) row[i] = op.cap * Math.tanh((row[i] as number) / op.cap);
  }
}

const ACTIVATIONS: Record<Exclude<ActivationName, "clampedSwiglu">, (x: number) => number> = {
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + errorFunction(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Series 7.6.2 of Abramowitz and Stegun: terms are positive, so that nothing cancels. */
function errorFunction(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

export interface Choice {
  token: number;
  weight: number;
}

/** The tokens that chose each expert, with the weights of its results. */
export function route(op: Op<"route">, context: StageContext): Choice[][] {
  const chosen: Choice[][] = Array.from({ length: op.experts }, () => []);
  const correction = op.correction === undefined ? undefined : valuesOf(context, op.correction);
  rowsOf(context, op.logits).forEach((row, token) => {
    const logits = row.subarray(0, op.experts);
    const largest = Math.max(...logits);
    const exponentials = logits.map((x) => Math.exp(x - largest));
    const sum = exponentials.reduce((total, x) => total + x, 0);
    const scores = op.scoring === "softmax" ? exponentials.map((x) => x / sum) : logits.map(sigmoid);
    const choice = scores.map((score, expert) => score + (correction?.[expert] ?? 0));
    const eligible = eligibleExperts(op, choice);
    const best = eligible.sort((a, b) => (choice[b] as number) - (choice[a] as number) || a - b).slice(0, op.perToken);
    const total = best.reduce((total, expert) => total + (scores[expert] as number), 0);
    const divisor = op.normalize ? total + (op.scoring === "sigmoid" ? 1e-20 : 0) : 1;
    for (const expert of best) {
      chosen[expert]?.push({ token, weight: ((scores[expert] as number) / divisor) * op.scale });
    }
  });
  return chosen;
}

function eligibleExperts(op: Op<"route">, choice: Float64Array): number[] {
  const size = op.experts / op.groupCount;
  const experts = Array.from(choice.keys());
  const groups = Array.from({ length: op.groupCount }, (_, group) => {
    const members = Array.from(choice.slice(group * size, (group + 1) * size)).sort((a, b) => b - a);
    const [best = 0, second = 0] = members;
    return { group, score: op.groupScore === "max" ? best : best + second };
  });
  const kept = groups.sort((a, b) => b.score - a.score || a.group - b.group).slice(0, op.groupsKept);
  return op.groupCount === 1
    ? experts
    : experts.filter((expert) => kept.some(({ group }) => group === Math.floor(expert / size)));
}

export function rowsOf({ registers, tokens }: StageContext, name: Register): Float64Array[] {
  const register = registers.get(name);
  if (register === undefined) throw new Error(`no register ${name}`);
  return register.rows.slice(0, tokens);
}

function valuesOf({ tensors }: StageContext, index: number): Float64Array {
  return (tensors[index] as Tensor).values;
}
