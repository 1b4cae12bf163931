/** Which tensor of the checkpoint goes where: every one is stored, tied or dropped, and every one needed is there. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { LayerstreamError } from "../errors.js";
import { type Architecture, type Layer, type StageKind, type TensorSpec, tensorName } from "./architecture.js";
import { type ResolvedSource, resolveSource } from "./source-resolution.js";

export interface AssignedTensor extends Omit<ResolvedSource, "parts"> {
  /** In the store. */
  name: string;
  role: TensorSpec["role"];
  /** As it multiplies: [rows, columns] or [length]. */
  shape: readonly number[];
}

export interface AssignedStage {
  name: StageKind["name"];
  layer: number;
  expert?: number;
  tensors: AssignedTensor[];
}

export interface AssignedLayer {
  file: string;
  stages: AssignedStage[];
}

export interface Assignment {
  layers: AssignedLayer[];
  /** Names in the checkpoint of tensors that are stored under another name. */
  tied: Record<string, string>;
  /** Names in the checkpoint that no stage uses. */
  dropped: string[];
}

/**
 * @throws TENSOR_MISSING, TENSOR_MISMATCH (shape against config), UNSUPPORTED_MODEL (a dtype that is not computed with)
 */
export function assignTensors(checkpoint: Checkpoint, architecture: Architecture): Assignment {
  const used = new Set<string>();
  const tied: Record<string, string> = {};
  const layers = architecture.layers.map((layer) => assignLayer(checkpoint, architecture, layer, used));
  const dropped = [...checkpoint.tensors.keys()].filter((name) => !used.has(name)).sort();
  const { headTensor } = architecture;
  if (architecture.tied && checkpoint.tensors.has(headTensor)) {
    tied[headTensor] = architecture.embeddingTensor;
    return { layers, tied, dropped: dropped.filter((name) => name !== headTensor) };
  }
  return { layers, tied, dropped };
}

function assignLayer(
  checkpoint: Checkpoint,
  architecture: Architecture,
  layer: Layer,
  used: Set<string>,
): AssignedLayer {
  const stages = layer.stages.map((stage) => {
    const kind = architecture.kinds[stage.kind];
    if (!kind) throw new LayerstreamError("INTERNAL", `${layer.file} has a stage of the unknown kind ${stage.kind}.`);
    const tensors = kind.tensors.map((spec) => {
      const { parts, ...resolved } = resolveSource(checkpoint, withTiedName(spec, architecture), stage);
      for (const part of parts) used.add(part);
      const name = tensorName(spec, stage.layer, stage.expert);
      const tensor: AssignedTensor = { name, role: spec.role, shape: spec.shape, ...resolved };
      // Rows that are gathered are not multiplied: their columns must be in order.
      const isGathered = spec.name === architecture.embeddingTensor && tensor.columnOrder !== undefined;
      return isGathered ? { ...withPlainRows(tensor), expanded: "an embedding with an order of columns" } : tensor;
    });
    const { layer: index, expert } = stage;
    return { name: kind.name, layer: index, ...(expert === undefined ? {} : { expert }), tensors };
  });
  return { file: layer.file, stages };
}

/** Tied checkpoints usually carry the embedding, some the head instead. */
function withTiedName(spec: TensorSpec, { tied, embeddingTensor, headTensor }: Architecture): TensorSpec {
  if (!tied || spec.name !== embeddingTensor) return spec;
  const { name, shape, sources = [{ name, shape }] } = spec;
  return { ...spec, sources: [...sources, { name: headTensor, shape }] };
}

/** The same tensor in rows that can be quantized: those of packed matrices are float32, with columns in their order. */
export function withPlainRows(tensor: AssignedTensor): AssignedTensor {
  const { source } = tensor;
  if (source.kind !== "packed" || source.format === "f32") return tensor;
  const { block: _, columnOrder: __, ...rest } = tensor;
  return { ...rest, source: { ...source, format: "f32", block: undefined }, sourceFormat: "f32" };
}
