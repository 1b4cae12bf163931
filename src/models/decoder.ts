import type {
  Architecture,
  Layer,
  PlanOp,
  Register,
  RopeSpec,
  Stage,
  StageKind,
  StageName,
  TensorSpec,
} from "./architecture.js";
import { attentionStage } from "./attention-stage.js";
import type { DecoderSpec, MlpSpec, MoeSpec } from "./family.js";
import { expertStage, mlpStage, moeStage } from "./feed-forward-stage.js";
import { type ModuleNames, moduleNames } from "./module-names.js";
import { StageBuilder } from "./stage-builder.js";

/** Compiles a family's spec into tensors, stages and one plan a kind of stage. Pure. */
export function compileDecoder(family: string, modelType: string, spec: DecoderSpec): Architecture {
  const names = moduleNames(spec.names ?? {}, spec.placement);
  const kinds: StageKind[] = [];
  const ropes: RopeSpec[] = [];
  const interned = new Map<string, number>();
  /** Index of the kind that `make` builds; equal keys share one. */
  const kindOf = (name: StageName, key: unknown, make: () => StageBuilder): number => {
    const id = JSON.stringify([name, key]);
    const found = interned.get(id);
    if (found !== undefined) return found;
    const { tensors, plan } = make();
    interned.set(id, kinds.push({ name, tensors, plan }) - 1);
    return kinds.length - 1;
  };

  const layers: Layer[] = [];
  if (!spec.tied) {
    const kind = kindOf("embed", 0, () => embedStage(spec, names));
    layers.push({ file: "embed.safetensors", stages: [{ kind, layer: -1 }] });
  }
  const digits = Math.max(3, String(spec.layers.length - 1).length);
  spec.layers.forEach((layer, index) => {
    const { rope, window, feedForward } = layer;
    const table = rope && internRope(ropes, rope);
    const attention = kindOf("attention", [window, table], () => attentionStage(spec, names, layer, table));
    const stages: Stage[] = [{ kind: attention, layer: index }];
    if (feedForward.kind === "mlp") {
      stages.push({ kind: kindOf("mlp", feedForward, () => mlpStage(spec, names, feedForward)), layer: index });
    } else {
      stages.push({ kind: kindOf("moe", feedForward, () => moeStage(spec, names, feedForward)), layer: index });
      const kind = kindOf("expert", feedForward, () => expertStage(spec, names, feedForward));
      for (let expert = 0; expert < feedForward.routing.experts; expert++) stages.push({ kind, layer: index, expert });
    }
    layers.push({ file: `layer-${String(index).padStart(digits, "0")}.safetensors`, stages });
  });
  const head = kindOf("head", 0, () => headStage(spec, names));
  layers.push({ file: "head.safetensors", stages: [{ kind: head, layer: -1 }] });

  return {
    family,
    modelType,
    hiddenSize: spec.hiddenSize,
    layerCount: spec.layers.length,
    vocabSize: spec.vocabSize,
    ...attentionShape(spec),
    normPlacement: spec.placement,
    ...feedForwardShape(spec),
    maxPositionEmbeddings: spec.maxPositionEmbeddings,
    tied: spec.tied,
    registers: registerWidths(spec, kinds),
    kinds,
    layers,
    ropes,
    embeddingTensor: `${names.embedding}.weight`,
    headTensor: `${names.head}.weight`,
    embeddingScale: spec.embeddingScale ?? 1,
  };
}

/** Index of `rope` in `ropes`, which gains it if no equal one is there. */
function internRope(ropes: RopeSpec[], rope: RopeSpec): number {
  const key = JSON.stringify(rope);
  const found = ropes.findIndex((other) => JSON.stringify(other) === key);
  return found >= 0 ? found : ropes.push(rope) - 1;
}

function embedStage(spec: DecoderSpec, names: ModuleNames): StageBuilder {
  const stage = new StageBuilder();
  stage.tensor({ name: `${names.embedding}.weight`, shape: [spec.vocabSize, spec.hiddenSize], role: "embedding" });
  return stage;
}

function headStage(spec: DecoderSpec, names: ModuleNames): StageBuilder {
  const stage = new StageBuilder();
  const { hiddenSize: width, vocabSize, tied, head = {} } = spec;
  const { norm = true } = head;
  if (norm) stage.norm(names.finalNorm, spec.norm, { input: "hidden", output: "normed", width });
  const name = `${tied ? names.embedding : names.head}.weight`;
  const matrix: TensorSpec = { name, shape: [vocabSize, width], role: "head" };
  const op: Extract<PlanOp, { op: "matmul" }> = {
    op: "matmul",
    input: norm ? "normed" : "hidden",
    output: "logits",
    weight: stage.tensor(matrix),
  };
  if (head.bias) op.bias = stage.vector(`${names.head}.bias`, vocabSize);
  if (head.normalized) {
    op.rowScale = stage.tensor({
      name: `${names.head}.inverse_row_norm`,
      shape: [vocabSize],
      role: "vector",
      sources: [{ name, shape: matrix.shape }],
      derive: "inverseRowNorm",
    });
  }
  if (head.scale !== undefined && head.scale !== 1) op.scale = head.scale;
  stage.plan.push(op);
  if (head.softCap !== undefined) {
    stage.plan.push({ op: "softCap", target: "logits", width: vocabSize, cap: head.softCap });
  }
  return stage;
}

function attentionShape({ attention }: DecoderSpec) {
  if (attention.kind === "grouped") {
    const { kind, heads, kvHeads, headDim } = attention;
    return {
      attention: kind,
      heads,
      kvHeads,
      headDim,
      kvCache: { heads: kvHeads, keyDim: headDim, valueDim: headDim },
    };
  }
  const { kind, heads, nopeDim, ropeDim, latentRank } = attention;
  return {
    attention: kind,
    heads,
    kvHeads: heads,
    headDim: nopeDim + ropeDim,
    kvCache: { heads: 1, keyDim: latentRank + ropeDim, valueDim: 0 },
  };
}

function feedForwardShape({ layers }: DecoderSpec): Pick<Architecture, "intermediateSize" | "experts"> {
  const parts = layers.map((layer) => layer.feedForward);
  const mlp = parts.find((part): part is MlpSpec => part.kind === "mlp");
  const moe = parts.find((part): part is MoeSpec => part.kind === "moe");
  const intermediateSize = (mlp ?? moe)?.intermediateSize ?? 0;
  if (!moe) return { intermediateSize };
  const { routing, shared } = moe;
  const experts = {
    count: routing.experts,
    perToken: routing.perToken,
    intermediateSize: moe.intermediateSize,
    sharedIntermediateSize: shared?.intermediateSize ?? 0,
  };
  return { intermediateSize, experts };
}

/** Each register is as wide as the widest thing that some op reads or writes in it. */
function registerWidths(spec: DecoderSpec, kinds: readonly StageKind[]): Partial<Record<Register, number>> {
  const widths: Partial<Record<Register, number>> = { hidden: spec.hiddenSize };
  const need = (register: Register | undefined, width: number) => {
    if (register !== undefined) widths[register] = Math.max(widths[register] ?? 0, width);
  };
  for (const { plan, tensors } of kinds) {
    for (const op of plan) {
      switch (op.op) {
        case "norm":
          need(op.input, op.groups * op.width);
          need(op.output, op.groups * op.width);
          break;
        case "matmul": {
          const [rows = 0, columns = 0] = tensors[op.weight]?.shape ?? [];
          const groups = op.groups ?? { rows, inputStride: 0, outputStride: 0 };
          const last = rows / groups.rows - 1;
          need(op.input, (op.inputOffset ?? 0) + last * groups.inputStride + columns);
          need(op.output, (op.outputOffset ?? 0) + last * groups.outputStride + groups.rows);
          break;
        }
        case "attention":
          need(op.output, op.heads * op.valueDim);
          break;
        case "route":
          need("expertInput", spec.hiddenSize);
          break;
        default:
      }
    }
  }
  return widths;
}
