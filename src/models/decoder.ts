import type { Architecture, Layer, PlanOp, Register, RopeSpec, StageKind, TensorSpec } from "./architecture.js";
import type { DecoderSpec, LayerSpec } from "./family.js";

const EMBEDDING = "model.embed_tokens.weight";

/** Compiles a family's spec into tensors, stages and one plan a kind of stage. Pure. */
export function compileDecoder(family: string, modelType: string, spec: DecoderSpec): Architecture {
  const kinds: StageKind[] = [];
  const ropes: RopeSpec[] = [];
  const layers: Layer[] = [];
  if (!spec.tied) {
    kinds.push(embedKind(spec));
    layers.push({ file: "embed.safetensors", stages: [{ kind: 0, layer: -1 }] });
  }

  const attentionKinds = new Map<string, number>();
  let mlp = -1;
  const digits = Math.max(3, String(spec.layers.length - 1).length);
  spec.layers.forEach((layer, index) => {
    const key = JSON.stringify([layer.window, layer.rope]);
    let attention = attentionKinds.get(key);
    if (attention === undefined) {
      attention = kinds.push(attentionKind(spec, layer, internRope(ropes, layer.rope))) - 1;
      attentionKinds.set(key, attention);
    }
    if (mlp < 0) mlp = kinds.push(mlpKind(spec)) - 1;
    layers.push({
      file: `layer-${String(index).padStart(digits, "0")}.safetensors`,
      stages: [
        { kind: attention, layer: index },
        { kind: mlp, layer: index },
      ],
    });
  });

  const head = kinds.push(headKind(spec)) - 1;
  layers.push({ file: "head.safetensors", stages: [{ kind: head, layer: -1 }] });

  const { heads, kvHeads, headDim } = spec.attention;
  return {
    family,
    modelType,
    hiddenSize: spec.hiddenSize,
    layerCount: spec.layers.length,
    vocabSize: spec.vocabSize,
    heads,
    kvHeads,
    headDim,
    intermediateSize: spec.mlp.intermediateSize,
    maxPositionEmbeddings: spec.maxPositionEmbeddings,
    tied: spec.tied,
    registers: {
      hidden: spec.hiddenSize,
      normed: spec.hiddenSize,
      query: heads * headDim,
      key: kvHeads * headDim,
      value: kvHeads * headDim,
      gate: spec.mlp.intermediateSize,
      up: spec.mlp.intermediateSize,
      logits: spec.vocabSize,
    },
    kinds,
    layers,
    ropes,
    embeddingTensor: EMBEDDING,
    embeddingScale: 1,
    ignoredTensors: spec.ignoredTensors,
  };
}

/** Index of `rope` in `ropes`, which gains it if no equal one is there. */
function internRope(ropes: RopeSpec[], rope: RopeSpec): number {
  const key = JSON.stringify(rope);
  const found = ropes.findIndex((other) => JSON.stringify(other) === key);
  return found >= 0 ? found : ropes.push(rope) - 1;
}

/** Collects a stage's tensors and ops side by side, so that tensor indices and execution order agree. */
class StageBuilder {
  readonly tensors: TensorSpec[] = [];
  readonly plan: PlanOp[] = [];

  constructor(private readonly prefix: string) {}

  tensor(name: string, shape: readonly number[], role: TensorSpec["role"]): number {
    return this.tensors.push({ name: this.prefix + name, shape, role }) - 1;
  }

  rmsNorm(name: string, input: Register, output: Register, width: number, epsilon: number): void {
    const weight = this.tensor(`${name}.weight`, [width], "vector");
    this.plan.push({ op: "rmsNorm", input, output, weight, width, epsilon });
  }

  /** `shape` is [rows, columns]. */
  linear(
    name: string,
    shape: readonly [number, number],
    bias: boolean,
    io: { input: Register; output: Register },
  ): void {
    const op: PlanOp = { op: "matmul", ...io, weight: this.tensor(`${name}.weight`, shape, "matrix") };
    if (bias) op.bias = this.tensor(`${name}.bias`, [shape[0]], "vector");
    if (io.output === "hidden") op.accumulate = true;
    this.plan.push(op);
  }
}

function embedKind(spec: DecoderSpec): StageKind {
  const stage = new StageBuilder("");
  stage.tensor(EMBEDDING, [spec.vocabSize, spec.hiddenSize], "embedding");
  return { name: "embed", tensors: stage.tensors, plan: stage.plan };
}

function attentionKind(spec: DecoderSpec, layer: LayerSpec, table: number): StageKind {
  const { hiddenSize, normEpsilon: epsilon } = spec;
  const { heads, kvHeads, headDim, inputBias, outputBias, headNorm } = spec.attention;
  const rotaryDim = layer.rope.rotaryDim;
  const stage = new StageBuilder("model.layers.{layer}.");

  stage.rmsNorm("input_layernorm", "hidden", "normed", hiddenSize, epsilon);
  stage.linear("self_attn.q_proj", [heads * headDim, hiddenSize], inputBias, { input: "normed", output: "query" });
  stage.linear("self_attn.k_proj", [kvHeads * headDim, hiddenSize], inputBias, { input: "normed", output: "key" });
  stage.linear("self_attn.v_proj", [kvHeads * headDim, hiddenSize], inputBias, { input: "normed", output: "value" });
  if (headNorm) {
    stage.rmsNorm("self_attn.q_norm", "query", "query", headDim, epsilon);
    stage.rmsNorm("self_attn.k_norm", "key", "key", headDim, epsilon);
  }
  stage.plan.push({ op: "rope", target: "query", heads, headDim, rotaryDim, table });
  stage.plan.push({ op: "rope", target: "key", heads: kvHeads, headDim, rotaryDim, table });
  const attention: PlanOp = {
    op: "attention",
    query: "query",
    key: "key",
    value: "value",
    heads,
    kvHeads,
    headDim,
    scale: headDim ** -0.5,
  };
  if (layer.window !== undefined) attention.window = layer.window;
  stage.plan.push(attention);
  stage.linear("self_attn.o_proj", [hiddenSize, heads * headDim], outputBias, { input: "query", output: "hidden" });
  return { name: "attention", tensors: stage.tensors, plan: stage.plan };
}

function mlpKind(spec: DecoderSpec): StageKind {
  const { hiddenSize } = spec;
  const { intermediateSize, activation, bias } = spec.mlp;
  const stage = new StageBuilder("model.layers.{layer}.");
  stage.rmsNorm("post_attention_layernorm", "hidden", "normed", hiddenSize, spec.normEpsilon);
  stage.linear("mlp.gate_proj", [intermediateSize, hiddenSize], bias, { input: "normed", output: "gate" });
  stage.linear("mlp.up_proj", [intermediateSize, hiddenSize], bias, { input: "normed", output: "up" });
  stage.plan.push({ op: "gatedActivation", gate: "gate", up: "up", activation });
  stage.linear("mlp.down_proj", [hiddenSize, intermediateSize], bias, { input: "gate", output: "hidden" });
  return { name: "mlp", tensors: stage.tensors, plan: stage.plan };
}

function headKind(spec: DecoderSpec): StageKind {
  const stage = new StageBuilder("");
  stage.rmsNorm("model.norm", "hidden", "normed", spec.hiddenSize, spec.normEpsilon);
  const name = spec.tied ? EMBEDDING : "lm_head.weight";
  const weight = stage.tensor(name, [spec.vocabSize, spec.hiddenSize], "head");
  stage.plan.push({ op: "matmul", input: "normed", output: "logits", weight });
  return { name: "head", tensors: stage.tensors, plan: stage.plan };
}
