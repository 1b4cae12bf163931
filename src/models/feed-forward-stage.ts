import type { Register, TensorSource } from "./architecture.js";
import { addToHidden } from "./attention-stage.js";
import type { Activation, DecoderSpec, MlpSpec, MoeSpec } from "./family.js";
import type { ModuleNames } from "./module-names.js";
import { type LinearSource, rowRange, StageBuilder } from "./stage-builder.js";

/** The feed-forward half of a layer: one MLP. */
export function mlpStage(spec: DecoderSpec, names: ModuleNames, mlp: MlpSpec): StageBuilder {
  const stage = new StageBuilder();
  const { hiddenSize: width } = spec;
  const { intermediateSize, activation, gated, bias } = mlp;
  const input = feedForwardInput(stage, spec, names);
  const part = (first: number): { source?: LinearSource } => {
    if (names.gateUp === undefined) return {};
    const packed = { rows: 2 * intermediateSize, view: rowRange(first, intermediateSize) };
    return { source: { module: names.gateUp, packed } };
  };
  const shape = [intermediateSize, width] as const;
  if (gated) stage.linear(names.gate, shape, bias, { input, output: "gate" }, part(0));
  stage.linear(names.up, shape, bias, { input, output: gated ? "up" : "gate" }, gated ? part(intermediateSize) : {});
  activate(stage, activation, intermediateSize, gated);
  const result = { input: "gate", columns: intermediateSize } as const;
  addToHidden(stage, spec, { name: names.down, postNorm: names.postFeedForwardNorm, bias, ...result });
  return stage;
}

/** The router, and the MLP that serves all tokens. Experts follow as stages of their own. */
export function moeStage(spec: DecoderSpec, names: ModuleNames, moe: MoeSpec): StageBuilder {
  const stage = new StageBuilder();
  const { hiddenSize: width } = spec;
  const { routing, routerBias, correction, shared, activation } = moe;
  const input = feedForwardInput(stage, spec, names);
  const router = { role: "router" } as const;
  stage.linear(names.router, [routing.experts, width], routerBias, { input, output: "router" }, router);
  const route = { op: "route", logits: "router", input, output: "hidden", ...routing } as const;
  stage.plan.push(correction ? { ...route, correction: stage.vector(names.correction, routing.experts) } : route);
  if (shared) {
    const shape = [shared.intermediateSize, width] as const;
    stage.linear(`${names.shared}.gate_proj`, shape, false, { input, output: "gate" });
    stage.linear(`${names.shared}.up_proj`, shape, false, { input, output: "up" });
    activate(stage, activation, shared.intermediateSize, true);
    if (shared.gated) {
      stage.linear(names.sharedGate, [1, width], false, { input, output: "router" }, router);
      stage.plan.push({ op: "scaleTokens", target: "gate", factor: "router", width: shared.intermediateSize });
    }
    const io = { input: "gate", output: "hidden", accumulate: true } as const;
    stage.linear(`${names.shared}.down_proj`, [width, shared.intermediateSize], false, io);
  }
  return stage;
}

/** One expert: a gated MLP on the rows of the tokens that chose it. */
export function expertStage(spec: DecoderSpec, names: ModuleNames, moe: MoeSpec): StageBuilder {
  const stage = new StageBuilder();
  const { hiddenSize: width } = spec;
  const { intermediateSize, activation, bias, routing } = moe;
  const linear = (
    module: string,
    shape: readonly [number, number],
    io: { input: Register; output: Register },
    stacked: TensorSource | undefined,
  ) => {
    const sources = stacked && { sources: [{ ...stacked, experts: routing.experts, transposed: true }] };
    const weight = stage.tensor({ name: `${module}.weight`, shape, role: "matrix", ...sources });
    if (!bias) return stage.plan.push({ op: "matmul", ...io, weight });
    const from = stacked && {
      ...stacked,
      name: `${stacked.name}_bias`,
      shape: [stacked.shape[0] as number],
      experts: routing.experts,
    };
    return stage.plan.push({ op: "matmul", ...io, weight, bias: stage.vector(`${module}.bias`, shape[0], from) });
  };
  const { stackedExperts } = names;
  const alternating = (offset: number): TensorSource | undefined =>
    stackedExperts && {
      name: stackedExperts.gateUp,
      shape: [2 * intermediateSize, width],
      rows: { offset, dims: [[intermediateSize, 2]] },
    };
  linear(names.expertGate, [intermediateSize, width], { input: "expertInput", output: "gate" }, alternating(0));
  linear(names.expertUp, [intermediateSize, width], { input: "expertInput", output: "up" }, alternating(1));
  activate(stage, activation, intermediateSize, true);
  const down = stackedExperts && { name: stackedExperts.down, shape: [width, intermediateSize] };
  linear(names.expertDown, [width, intermediateSize], { input: "gate", output: "expertOutput" }, down);
  return stage;
}

/** The register that the feed-forward half reads, normalized if the placement asks for it. */
function feedForwardInput(stage: StageBuilder, spec: DecoderSpec, names: ModuleNames): Register {
  if (spec.placement === "post") return "hidden";
  if (spec.placement !== "parallel") {
    stage.norm(names.feedForwardNorm, spec.norm, { input: "hidden", output: "normed", width: spec.hiddenSize });
  }
  return "normed";
}

function activate(stage: StageBuilder, { name, alpha, limit }: Activation, width: number, gated: boolean): void {
  const op = { op: "activation", gate: "gate", width, activation: name } as const;
  const limits = alpha === undefined || limit === undefined ? {} : { alpha, limit };
  stage.plan.push(gated ? { ...op, up: "up", ...limits } : { ...op, ...limits });
}
