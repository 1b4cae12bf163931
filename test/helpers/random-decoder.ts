/** Decoders drawn from the whole vocabulary of parts, and checkpoints of random weights for them. */
import { type Architecture, tensorName } from "../../dist/models/architecture.js";
import type {
  DecoderSpec,
  GroupedAttention,
  LatentAttention,
  LayerSpec,
  MlpSpec,
  MoeSpec,
} from "../../dist/models/family.js";
import type { TensorData, Tensors } from "./checkpoint.js";

/** Draws from one seeded stream. */
export class Draw {
  constructor(private readonly next: () => number) {}

  /** From `least` to `most`, both included. */
  integer(least: number, most: number): number {
    return least + (this.next() % (most - least + 1));
  }

  even(least: number, most: number): number {
    return 2 * this.integer(Math.ceil(least / 2), Math.floor(most / 2));
  }

  chance(part = 0.5): boolean {
    return this.next() / 2 ** 32 < part;
  }

  one<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)] as T;
  }

  /** Uniform in [-1, 1). */
  unit(): number {
    return this.next() / 2 ** 31 - 1;
  }
}

export function drawDecoder(draw: Draw): DecoderSpec {
  const latent = draw.chance(0.25);
  const attention = latent ? drawLatent(draw) : drawGrouped(draw);
  const sparse = draw.chance(0.4);
  const mlp = drawMlp(draw);
  const moe = drawMoe(draw);
  const ropes = [drawRope(draw, attention), drawRope(draw, attention)];
  const layers = Array.from({ length: draw.integer(1, 3) }, (): LayerSpec => {
    const layer: LayerSpec = { feedForward: sparse && draw.chance(0.7) ? moe : mlp };
    const rope = draw.one([...ropes, undefined]);
    if (rope) layer.rope = rope;
    if (!latent && draw.chance()) layer.window = draw.integer(1, 20);
    return layer;
  });
  const spec: DecoderSpec = {
    hiddenSize: draw.integer(17, 90),
    vocabSize: draw.integer(20, 150),
    maxPositionEmbeddings: 256,
    norm: draw.chance(0.7)
      ? { kind: "rms", epsilon: 1e-6, plusOne: draw.chance() }
      : { kind: "layer", epsilon: 1e-5, bias: draw.chance() },
    placement: sparse ? "pre" : draw.one(["pre", "post", "sandwich", "parallel"]),
    attention,
    layers,
    tied: draw.chance(0.3),
    embeddingScale: draw.one([1, 3.5]),
    head: {
      bias: draw.chance(0.3),
      normalized: draw.chance(0.3),
      scale: draw.one([1, 0.25]),
      ...(draw.chance(0.3) ? { softCap: 5 } : {}),
    },
  };
  if ((spec.placement === "pre" || spec.placement === "parallel") && draw.chance(0.3)) spec.residualScale = 0.4;
  if (draw.chance(0.5)) spec.names = {};
  if (spec.names && !latent && draw.chance()) {
    spec.names.queryKeyValue = { name: "attention.packed", order: draw.one(["stacked", "grouped"]) };
  }
  if (spec.names && mlp.gated && draw.chance()) spec.names.gateUp = "mlp.packed";
  if (spec.names && draw.chance()) spec.names.stackedExperts = { gateUp: "experts.gate_up", down: "experts.down" };
  return spec;
}

function drawGrouped(draw: Draw): GroupedAttention {
  const kvHeads = draw.integer(1, 3);
  const headDim = draw.even(4, 70);
  const heads = kvHeads * draw.integer(1, 4);
  const attention: GroupedAttention = {
    kind: "grouped",
    heads,
    kvHeads,
    headDim,
    scale: headDim ** -0.5,
    inputBias: draw.chance(),
    outputBias: draw.chance(),
    interleaved: draw.chance(),
    sinks: draw.chance(0.3),
  };
  if (draw.chance(0.4)) attention.headNorm = draw.one(["head", "width"]);
  if (draw.chance(0.3)) attention.softCap = 4;
  if (draw.chance(0.3)) attention.alibiSlopes = Array.from({ length: heads }, (_, head) => 2 ** -(head + 1));
  if (draw.chance(0.3)) attention.lognLength = draw.integer(2, 12);
  return attention;
}

function drawLatent(draw: Draw): LatentAttention {
  const nopeDim = draw.integer(3, 40);
  const ropeDim = draw.even(4, 20);
  const attention: LatentAttention = {
    kind: "latent",
    heads: draw.integer(1, 5),
    latentRank: draw.integer(5, 80),
    nopeDim,
    ropeDim,
    valueDim: draw.integer(3, 40),
    scale: (nopeDim + ropeDim) ** -0.5,
    bias: draw.chance(),
    interleaved: draw.chance(),
  };
  if (draw.chance()) attention.queryRank = draw.integer(5, 40);
  return attention;
}

function drawRope(draw: Draw, attention: GroupedAttention | LatentAttention): NonNullable<LayerSpec["rope"]> {
  const widest = attention.kind === "latent" ? attention.ropeDim : attention.headDim;
  const rotaryDim = attention.kind === "latent" ? widest : draw.one([widest, draw.even(2, widest)]);
  const scaling = draw.one([{ type: "default" }, { type: "linear", factor: 3 }] as const);
  return { rotaryDim, theta: draw.one([10_000, 500]), scaling };
}

function drawActivation(draw: Draw, gated: boolean): MlpSpec["activation"] {
  const names = ["silu", "gelu", "geluTanh", "clampedSwiglu"] as const;
  const name = draw.one(gated ? names : names.slice(0, 3));
  return name === "clampedSwiglu" ? { name, alpha: 1.7, limit: 0.8 } : { name };
}

function drawMlp(draw: Draw): MlpSpec {
  const gated = draw.chance(0.7);
  const intermediateSize = draw.integer(9, 100);
  return { kind: "mlp", intermediateSize, activation: drawActivation(draw, gated), gated, bias: draw.chance() };
}

function drawMoe(draw: Draw): MoeSpec {
  const groupCount = draw.one([1, 1, 2, 3]);
  const experts = groupCount * draw.integer(2, 4);
  const groupsKept = draw.integer(1, groupCount);
  const perToken = draw.integer(1, Math.min(3, (experts / groupCount) * groupsKept));
  const moe: MoeSpec = {
    kind: "moe",
    routing: {
      experts,
      perToken,
      scoring: draw.one(["softmax", "sigmoid"]),
      groupCount,
      groupsKept,
      groupScore: draw.one(["max", "topTwoSum"]),
      normalize: draw.chance(),
      scale: draw.one([1, 2.5]),
    },
    routerBias: draw.chance(),
    correction: draw.chance(),
    intermediateSize: draw.integer(5, 50),
    activation: drawActivation(draw, true),
    bias: draw.chance(),
  };
  if (draw.chance()) moe.shared = { intermediateSize: draw.integer(5, 50), gated: draw.chance() };
  return moe;
}

/** Every tensor that the architecture takes from a checkpoint, in float32, with values that keep activations near 1. */
export function drawCheckpoint(draw: Draw, architecture: Architecture): Tensors {
  const tensors: Tensors = new Map();
  for (const stage of architecture.layers.flatMap((layer) => layer.stages)) {
    for (const spec of architecture.kinds[stage.kind]?.tensors ?? []) {
      const [source = { name: spec.name, shape: spec.shape }] = spec.sources ?? [];
      const name = tensorName(source, stage.layer, stage.expert);
      if (tensors.has(name)) continue;
      const matrix = source.transposed ? [...source.shape].reverse() : [...source.shape];
      const isNorm = /norm\.weight$/.test(name);
      const columns = source.shape[1];
      const spread = columns === undefined ? 0.3 : /embed/.test(name) ? 1 : 2.5 / Math.sqrt(columns);
      const value = () => (isNorm ? 1 + 0.2 * draw.unit() : spread * draw.unit());
      tensors.set(name, float32(source.experts === undefined ? matrix : [source.experts, ...matrix], value));
    }
  }
  return tensors;
}

function float32(shape: number[], value: () => number): TensorData {
  const count = shape.reduce((product, size) => product * size, 1);
  return { dtype: "F32", shape, bytes: Buffer.from(Float32Array.from({ length: count }, value).buffer) };
}
