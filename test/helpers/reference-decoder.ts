/** A whole forward pass in float64: stages in order, experts on the tokens that chose them. */
import { type Architecture, type Register, type Stage, tensorName } from "../../dist/models/architecture.js";
import { type Choice, execute, type Registers, route, rowsOf, type StageContext } from "./reference-ops.js";
import { resolveTensor, type Tensor, type Tensors } from "./reference-tensors.js";

export class ReferenceDecoder {
  private readonly resolved = new Map<Stage, Tensor[]>();

  constructor(
    private readonly architecture: Architecture,
    private readonly checkpoint: Tensors,
  ) {}

  /** Logits [ids.length, vocabulary] of one sequence. */
  forward(ids: readonly number[]): Float64Array {
    const { architecture } = this;
    const registers: Registers = new Map();
    for (const [name, width] of Object.entries(architecture.registers)) {
      registers.set(name as Register, { width, rows: ids.map(() => new Float64Array(width)) });
    }
    const context = { registers, ropes: architecture.ropes, tokens: ids.length, tensors: [] };
    this.embed(ids, rowsOf(context, "hidden"));
    for (const { stages } of architecture.layers) {
      let routed: { op: RouteOp; choices: Choice[][] } | undefined;
      for (const stage of stages) {
        const stageContext = { ...context, tensors: this.tensorsOf(stage) };
        if (stage.expert === undefined) routed = this.runStage(stage, stageContext) ?? routed;
        else if (routed) this.runExpert(stage, stageContext, routed.op, routed.choices[stage.expert] ?? []);
        else throw new Error(`expert ${stage.expert} without a router`);
      }
    }
    return Float64Array.from(rowsOf(context, "logits").flatMap((row) => [...row]));
  }

  private embed(ids: readonly number[], hidden: readonly Float64Array[]): void {
    const { hiddenSize, embeddingScale, vocabSize } = this.architecture;
    const spec = this.architecture.kinds
      .flatMap((kind) => kind.tensors)
      .find(({ name }) => name === this.architecture.embeddingTensor);
    const shape = [vocabSize, hiddenSize];
    const stage = { kind: -1, layer: -1 };
    const { values } = resolveTensor(this.checkpoint, spec ?? { name: "embedding", shape, role: "embedding" }, stage);
    ids.forEach((id, t) => {
      const row = values.subarray(id * hiddenSize, (id + 1) * hiddenSize);
      hidden[t]?.set(row.map((value) => value * embeddingScale));
    });
  }

  /** What the stage's router chose, if it has one. */
  private runStage(stage: Stage, context: StageContext): { op: RouteOp; choices: Choice[][] } | undefined {
    let routed: { op: RouteOp; choices: Choice[][] } | undefined;
    for (const op of this.kindOf(stage).plan) {
      if (op.op === "route") routed = { op, choices: route(op, context) };
      else execute(op, context);
    }
    return routed;
  }

  private runExpert(stage: Stage, context: StageContext, op: RouteOp, choices: readonly Choice[]): void {
    const input = rowsOf(context, op.input);
    const output = rowsOf(context, op.output);
    const expertContext = { ...context, tokens: choices.length };
    choices.forEach(({ token }, i) => {
      rowsOf(expertContext, "expertInput")[i]?.set(input[token] as Float64Array);
    });
    this.runStage(stage, expertContext);
    choices.forEach(({ token, weight }, i) => {
      rowsOf(expertContext, "expertOutput")[i]?.forEach((value, d) => {
        const row = output[token] as Float64Array;
        row[d] = (row[d] as number) + weight * value;
      });
    });
  }

  private tensorsOf(stage: Stage): Tensor[] {
    const found = this.resolved.get(stage);
    if (found) return found;
    const tensors = this.kindOf(stage).tensors.map((spec) => {
      const tensor = resolveTensor(this.checkpoint, spec, stage);
      if (tensor.shape.join() === spec.shape.join()) return tensor;
      throw new Error(`${tensorName(spec, stage.layer, stage.expert)} is [${tensor.shape}], not [${spec.shape}]`);
    });
    this.resolved.set(stage, tensors);
    return tensors;
  }

  private kindOf(stage: Stage) {
    const kind = this.architecture.kinds[stage.kind];
    if (kind === undefined) throw new Error(`no kind ${stage.kind}`);
    return kind;
  }
}

type RouteOp = Parameters<typeof route>[0];
