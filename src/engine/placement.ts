/** Which stages the processor computes beside a device with memory of its own. Pure. */
import { formatDuration, formatRate } from "../units.js";
import { isOnTape, type ResidencyStage, total } from "./held-chunks.js";

/** "device": weights that it does not hold are copied to it. "cpu": the processor multiplies them where they are. */
export type Placement = "auto" | "device" | "cpu";
export const PLACEMENTS: readonly Placement[] = ["auto", "device", "cpu"];

export interface PlacementRates {
  /** From pinned memory to the device, bytes a second. */
  copyBytesPerSecond: number;
  /** At which the processor's threads read memory, bytes a second. */
  hostBytesPerSecond: number;
}

export interface PlacementInput {
  stages: readonly ResidencyStage[];
  /** Those that the processor can compute: without attention, experts or adapters. */
  eligible: readonly boolean[];
  /** Of weights, that the device has room for. */
  deviceBytes: number;
}

export interface PlacementPlan {
  /** For each stage: whether the processor computes it in passes of few tokens. */
  onProcessor: boolean[];
  /** A sentence. */
  reason: string;
}

/** Of weights that are not on the device: with fewer, it is not worth to measure what would be faster. */
export const LEAST_MOVED_BYTES = 2 ** 28;
/** What products of one token reach of the rate at which memory is read: 0.8 and more for most formats. */
const PRODUCT_SHARE = 0.8;

/**
 * A stage whose weights are not held on the device costs a copy of them in each pass, or what the processor takes to
 * multiply them: the shorter decides, for all stages alike. Of stages that the processor can compute, those that the device
 * holds as a whole stay there: the last ones, as many as fit beside all others.
 *
 * @param rates for "auto"; without them, the device
 */
export function placeStages(input: PlacementInput, placement: Placement, rates?: PlacementRates): PlacementPlan {
  const { stages, eligible, deviceBytes } = input;
  const none = stages.map(() => false);
  if (placement === "device") return { onProcessor: none, reason: "All stages run on the device, as asked." };
  const weights = total(stages.filter((stage) => isOnTape(stage)).map(({ bytes }) => bytes));
  if (weights <= deviceBytes) return { onProcessor: none, reason: "The device holds all stages." };
  if (!eligible.includes(true)) {
    return { onProcessor: none, reason: "All stages run on the device: the processor takes none of this model." };
  }
  const { faster, words } = compare(placement, rates);
  if (!faster) return { onProcessor: none, reason: `All stages run on the device: ${words}.` };

  const others = total(stages.filter((stage, index) => isOnTape(stage) && !eligible[index]).map(({ bytes }) => bytes));
  let room = deviceBytes - others;
  const onProcessor = eligible.slice();
  for (let index = stages.length - 1; index >= 0; index--) {
    if (!eligible[index]) continue;
    room -= stages[index]?.bytes ?? 0;
    if (room < 0) break;
    onProcessor[index] = false;
  }
  const count = onProcessor.filter(Boolean).length;
  return { onProcessor, reason: `${count} of ${stages.length} stages run on the processor: ${words}.` };
}

function compare(placement: Placement, rates: PlacementRates | undefined): { faster: boolean; words: string } {
  if (placement === "cpu") return { faster: true, words: "as asked" };
  if (rates === undefined) return { faster: false, words: "next to nothing is copied to it" };
  const gib = 2 ** 30;
  const copySeconds = gib / rates.copyBytesPerSecond;
  const computeSeconds = gib / (PRODUCT_SHARE * rates.hostBytesPerSecond);
  const copying = `copying a GiB of weights takes ${formatDuration(copySeconds)} (${formatRate(rates.copyBytesPerSecond)})`;
  const computing = `multiplying it on the processor ${formatDuration(computeSeconds)}`;
  return { faster: computeSeconds < copySeconds, words: `${copying}, ${computing}` };
}
