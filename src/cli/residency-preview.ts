/** What a memory budget would do to a store: where each stage would live, and what a token would cost at least. */
import type { LoadOptions, Residency, ResidencyEntry } from "../engine/contract.js";
import { formatBytes, formatDuration, formatRate } from "../units.js";
import { formatTable } from "./table.js";

export interface ResidencyPreview {
  residency: Residency;
  /** Raw rates of direct reads of the store and of memory, bytes a second. */
  diskBytesPerSecond: number;
  memoryBytesPerSecond: number;
  /** The longer of reading what is streamed and of reading all that is multiplied from memory. */
  predictedSecondsPerToken: number;
}

const MEASURED_SECONDS = 0.5;

/** Loads the model without reading its weights. @throws as AutoModel.fromPretrained, for example MEMORY_BUDGET_TOO_SMALL */
export async function previewResidency(
  store: string,
  options: Pick<LoadOptions, "memory" | "maxSeqLen" | "kvDtype">,
): Promise<ResidencyPreview> {
  const { AutoModel } = await import("../auto-model.js");
  const { measureDiskRate, measureMemoryRate } = await import("../engine/roofline.js");
  const model = await AutoModel.fromPretrained(store, options);
  const residency = model.residency();
  const stats = model.stats();
  await model.dispose();
  const diskBytesPerSecond = await measureDiskRate(store, MEASURED_SECONDS);
  const memoryBytesPerSecond = measureMemoryRate(stats, MEASURED_SECONDS);
  const predictedSecondsPerToken = Math.max(
    residency.streamedBytes / diskBytesPerSecond,
    (residency.heldBytes + residency.streamedBytes) / memoryBytesPerSecond,
  );
  return { residency, diskBytesPerSecond, memoryBytesPerSecond, predictedSecondsPerToken };
}

/** As lines of text, without a newline at the end. */
export function renderPreview({ residency, ...figures }: ResidencyPreview): string {
  const rates = `${formatRate(figures.diskBytesPerSecond)} from the disk, ${formatRate(figures.memoryBytesPerSecond)} from memory`;
  return formatTable([
    [
      "memory budget",
      `${formatBytes(residency.memoryBudgetBytes)}; the least is ${formatBytes(residency.minimumBytes)}`,
    ],
    ["held", formatBytes(residency.heldBytes)],
    ["streamed per token", formatBytes(residency.streamedBytes)],
    ["ring", formatBytes(residency.ringBytes)],
    ["KV cache, activations", `${formatBytes(residency.kvBytes)}, ${formatBytes(residency.activationBytes)}`],
    ["Node and the addon", formatBytes(residency.runtimeBytes)],
    ["context", `${residency.maxSeqLen} tokens`],
    ...[...kindsOf(residency.stages)].map(([kind, entries]): [string, string] => [kind, renderKind(entries)]),
    ["a token takes about", `${formatDuration(figures.predictedSecondsPerToken)}, at ${rates}`],
  ]);
}

/** "layers.3.mlp" is of the kind "mlp". */
function kindsOf(stages: readonly ResidencyEntry[]): Map<string, ResidencyEntry[]> {
  const kinds = new Map<string, ResidencyEntry[]>();
  for (const entry of stages) {
    const kind = entry.stage.replace(/^layers\.\d+\./, "").replace(/\.\d+$/, "");
    kinds.set(kind, [...(kinds.get(kind) ?? []), entry]);
  }
  return kinds;
}

function renderKind(entries: readonly ResidencyEntry[]): string {
  const tiers = new Map<string, number>();
  let bytes = 0;
  let heldBytes = 0;
  for (const entry of entries) {
    tiers.set(entry.tier, (tiers.get(entry.tier) ?? 0) + 1);
    bytes += entry.bytes;
    heldBytes += entry.heldBytes;
  }
  const counts = [...tiers].map(([tier, count]) => `${count} ${tier}`).join(", ");
  return `${counts}: ${formatBytes(heldBytes)} of ${formatBytes(bytes)} in memory`;
}
