/** Weights that come quantized are quantized again on request only. */
import { LayerstreamError } from "../errors.js";
import type { AssignedTensor, Assignment } from "../models/assignment.js";
import { type Compression, type CompressionSettings, isElementFormat, isLossy } from "../quant/registry.js";

/** What the settings ask for tensors of this role. */
export function compressionOf(role: AssignedTensor["role"], settings: CompressionSettings): Compression {
  switch (role) {
    case "matrix":
      return settings.compression;
    case "embedding":
      return settings.embeddingCompression;
    case "head":
      return settings.headCompression;
    default:
      return "none";
  }
}

/**
 * @throws INVALID_ARGUMENT if the settings would quantize weights again
 */
export function refuseRequantization(path: string, { layers }: Assignment, settings: CompressionSettings): void {
  const tensors = layers.flatMap(({ stages }) => stages.flatMap((stage) => stage.tensors));
  const affected = tensors.filter((tensor) => isLossy(compressionOf(tensor.role, settings)) && isQuantized(tensor));
  const [first] = affected;
  if (!first) return;
  throw new LayerstreamError(
    "INVALID_ARGUMENT",
    `${path} is quantized already (${affected.length} matrices, the first is "${first.name}"): compression "${compressionOf(first.role, settings)}" would quantize it again.`,
    {
      file: path,
      tensor: first.name,
      remedy:
        'Leave compression at "none" to keep the weights as they are, or ask for it with requantize (--requantize).',
    },
  );
}

function isQuantized({ sourceFormat, expanded }: AssignedTensor): boolean {
  return expanded !== undefined || !isElementFormat(sourceFormat);
}
