/** Which tensor of the checkpoint goes where: every one is stored, tied or dropped, and every one needed is there. */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.js";
import { LayerstreamError } from "../errors.js";
import type { ElementFormat } from "../native/types.js";
import { elementFormatOf } from "../quant/registry.js";
import { type Architecture, type Layer, type StageKind, type TensorSpec, tensorName } from "./architecture.js";

const HEAD_TENSOR = "lm_head.weight";

export interface AssignedTensor {
  /** In the store. */
  name: string;
  role: TensorSpec["role"];
  source: CheckpointTensor;
  sourceFormat: ElementFormat;
}

export interface AssignedStage {
  name: StageKind["name"];
  layer: number;
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
  if (architecture.tied && checkpoint.tensors.has(HEAD_TENSOR)) {
    tied[HEAD_TENSOR] = architecture.embeddingTensor;
    return { layers, tied, dropped: dropped.filter((name) => name !== HEAD_TENSOR) };
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
      const name = tensorName(spec, stage.layer);
      const source = findSource(checkpoint, architecture, name);
      checkShape(checkpoint, source, spec);
      used.add(source.name);
      return { name, role: spec.role, source, sourceFormat: checkDtype(source) };
    });
    return { name: kind.name, layer: stage.layer, tensors };
  });
  return { file: layer.file, stages };
}

/** Tied checkpoints usually carry the embedding, some the head instead. */
function findSource(checkpoint: Checkpoint, architecture: Architecture, name: string): CheckpointTensor {
  const alias = architecture.tied && name === architecture.embeddingTensor ? HEAD_TENSOR : name;
  const source = checkpoint.tensors.get(name) ?? checkpoint.tensors.get(alias);
  if (source) return source;
  throw new LayerstreamError(
    "TENSOR_MISSING",
    `${checkpoint.path} has no tensor "${name}", which ${checkpoint.configFile} asks for.`,
    {
      file: checkpoint.path,
      tensor: name,
      remedy: "Check that all shards are there and that config.json belongs to them.",
    },
  );
}

function checkShape(checkpoint: Checkpoint, source: CheckpointTensor, spec: TensorSpec): void {
  const { shape, name, shard, offset } = source;
  if (shape.length === spec.shape.length && shape.every((size, axis) => size === spec.shape[axis])) return;
  throw new LayerstreamError(
    "TENSOR_MISMATCH",
    `${shard.path}: tensor "${name}" has shape [${shape.join(", ")}], but ${checkpoint.configFile} makes it [${spec.shape.join(", ")}].`,
    { file: shard.path, tensor: name, offset, remedy: "Check that config.json belongs to these weights." },
  );
}

function checkDtype(source: CheckpointTensor): ElementFormat {
  const format = elementFormatOf(source.dtype);
  if (format) return format;
  const { name, shard, offset, dtype } = source;
  throw new LayerstreamError("UNSUPPORTED_MODEL", `${shard.path}: tensor "${name}" has dtype ${dtype}.`, {
    file: shard.path,
    tensor: name,
    offset,
    remedy: "layerstream reads weights in F32, F16 and BF16: convert the checkpoint to one of them.",
  });
}
