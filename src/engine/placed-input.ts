/** Decides on placement before residency: measures what that depends on, where it matters. */
import type { Architecture } from "../models/architecture.js";
import { native } from "../native/binding.js";
import { isOnTape, total } from "./held-chunks.js";
import type { ModelDescription } from "./model-description.js";
import { LEAST_MOVED_BYTES, type PlacementRates, placeStages } from "./placement.js";
import { productScratchBytes } from "./product-scratch.js";
import { planResidency } from "./residency.js";
import { type EngineOptions, residencyInputOf } from "./residency-input.js";
import { LEAST_TOKENS, type ResidencyInput } from "./residency-sizes.js";

const MEASURED_SECONDS = 0.1;
/** Of the host's memory, to measure it with: more than a cache holds, and less than any budget. */
const MEASURED_BYTES = 2 ** 26;

export interface PlacedInput {
  input: ResidencyInput;
  /** A sentence; absent where the device uses the host's memory. */
  reason?: string;
}

/** What residency is planned from, with the stages that the processor computes beside a device with memory of its own. */
export function placedInputOf(
  architecture: Architecture,
  description: ModelDescription,
  options: EngineOptions,
): PlacedInput {
  const input = residencyInputOf(architecture, description, options);
  if (options.vram === undefined) return { input };
  const { stages } = input;
  const { placement = "auto" } = options;
  const eligible = description.stages.map((_, index) => isEligible(architecture, description, index));
  const { deviceHeldBytes } = planResidency(input);
  const moved = total(stages.filter(isOnTape).map(({ bytes }) => bytes)) - deviceHeldBytes;
  const measured =
    placement === "auto" && moved >= LEAST_MOVED_BYTES && eligible.includes(true) ? measureRates(options) : undefined;
  const deviceBytes = options.hold === false ? 0 : deviceHeldBytes;
  const { onProcessor, reason } = placeStages({ stages, eligible, deviceBytes }, placement, measured);
  if (!onProcessor.includes(true)) return { input, reason };
  const runtimeBytes = input.runtimeBytes + processorBytes(architecture, description, options, onProcessor);
  return { input: { ...input, runtimeBytes, onProcessor }, reason };
}

function measureRates({ device, threads }: EngineOptions): PlacementRates {
  return {
    copyBytesPerSecond: native().measureCopyRate(device, MEASURED_SECONDS),
    hostBytesPerSecond: native().measureMemoryRate(MEASURED_BYTES, threads, MEASURED_SECONDS),
  };
}

/** As native/stream/processor.h takes stages: of a layer, with neither attention nor experts, column orders nor adapters. */
function isEligible({ kinds }: Architecture, { stages }: ModelDescription, index: number): boolean {
  const stage = stages[index]?.native;
  if (stage?.layer === undefined || stage.routed !== undefined) return false;
  const plain = kinds[stage.kind]?.plan.every(({ op }) => ["norm", "matmul", "activation", "softCap"].includes(op));
  return plain === true && stage.matrices.every(({ columnOrder, adapters }) => !columnOrder && !adapters?.length);
}

/** Registers of the processor's stages, their norms and biases, and the scratch of its products. */
function processorBytes(
  { registers }: Architecture,
  { stages, widestColumns }: ModelDescription,
  { precision, threads }: EngineOptions,
  onProcessor: readonly boolean[],
): number {
  const names = ["hidden", "normed", "gate", "up", "router", "expertInput", "expertOutput"] as const;
  const floats = total(names.map((name) => registers[name] ?? 0)) * LEAST_TOKENS;
  const vectors = stages.filter((_, index) => onProcessor[index]).flatMap(({ native: { vectors } }) => vectors);
  const fast = precision === "fast" && native().cpuKernels().includes("vnni");
  return (
    4 * (floats + total(vectors.map(({ length }) => length))) + (fast ? productScratchBytes(widestColumns, threads) : 0)
  );
}
