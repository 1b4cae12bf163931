/** What a memory budget would do to a store: where each stage would live, and what a token would cost at least. */
import type { LoadOptions, Residency, ResidencyEntry } from "../engine/contract.js";
import { formatBytes, formatDuration, formatRate } from "../units.js";
import { formatTable } from "./table.js";

export interface ResidencyPreview {
  residency: Residency;
  /** Raw rates of direct reads of the store, of copies to a device with memory of its own, and of its memory, bytes a second. */
  diskBytesPerSecond: number;
  copyBytesPerSecond?: number;
  memoryBytesPerSecond: number;
  /**
   * The longest of reading what is streamed, of copying what is not on the device, and of reading from memory all that is
   * multiplied: from the device's, and from the host's what is placed on the processor. What of the KV cache is elsewhere counts.
   */
  predictedSecondsPerToken: number;
}

const MEASURED_SECONDS = 0.5;

/** Loads the model without reading its weights. @throws as AutoModel.fromPretrained, for example MEMORY_BUDGET_TOO_SMALL */
export async function previewResidency(
  store: string,
  options: Pick<LoadOptions, "memory" | "vram" | "device" | "placement" | "maxSeqLen" | "kvDtype">,
): Promise<ResidencyPreview> {
  const { AutoModel } = await import("../auto-model.js");
  const { measureDiskRate, measureDeviceRates, measureMemoryRate } = await import("../engine/roofline.js");
  const model = await AutoModel.fromPretrained(store, options);
  const residency = model.residency();
  const stats = model.stats();
  await model.dispose();
  const diskBytesPerSecond = await measureDiskRate(store, MEASURED_SECONDS);
  const { copyBytesPerSecond, memoryBytesPerSecond } =
    residency.vramBudgetBytes > 0
      ? measureDeviceRates(stats.device, MEASURED_SECONDS)
      : { memoryBytesPerSecond: measureMemoryRate(stats, MEASURED_SECONDS) };
  const { hostHeldBytes, heldBytes, streamedBytes, kvSpilledBytes } = residency;
  const ownMemory = residency.vramBudgetBytes > 0;
  // What the processor multiplies is not copied, and neither beside the other works while it is its turn.
  const onProcessor = residency.stages.filter(({ placement }) => placement === "cpu");
  const processorBytes = onProcessor.reduce((bytes, stage) => bytes + stage.hostHeldBytes + stage.streamedBytes, 0);
  const processorSeconds = processorBytes === 0 ? 0 : processorBytes / measureMemoryRate(stats, MEASURED_SECONDS);
  const copiedBytes = streamedBytes + hostHeldBytes - processorBytes + kvSpilledBytes;
  const predictedSecondsPerToken = Math.max(
    (streamedBytes + (ownMemory ? 0 : kvSpilledBytes)) / diskBytesPerSecond,
    copyBytesPerSecond === undefined ? 0 : copiedBytes / copyBytesPerSecond,
    processorSeconds + (heldBytes + streamedBytes - processorBytes) / memoryBytesPerSecond,
  );
  return { residency, diskBytesPerSecond, copyBytesPerSecond, memoryBytesPerSecond, predictedSecondsPerToken };
}

/** As lines of text, without a newline at the end. */
export function renderPreview({ residency, ...figures }: ResidencyPreview): string {
  const { diskBytesPerSecond, copyBytesPerSecond, memoryBytesPerSecond } = figures;
  const copies = copyBytesPerSecond === undefined ? "" : ` ${formatRate(copyBytesPerSecond)} to the device,`;
  const rates = `${formatRate(diskBytesPerSecond)} from the disk,${copies} ${formatRate(memoryBytesPerSecond)} from memory`;
  const ownMemory = residency.vramBudgetBytes > 0;
  return formatTable([
    [
      "memory budget",
      `${formatBytes(residency.memoryBudgetBytes)}; the least is ${formatBytes(residency.minimumBytes)}`,
    ],
    ...(ownMemory
      ? [
          [
            "vram budget",
            `${formatBytes(residency.vramBudgetBytes)}; the least is ${formatBytes(residency.minimumVramBytes)}`,
          ] as const,
          ["held on the device", formatBytes(residency.deviceHeldBytes)] as const,
          ["held on the host", formatBytes(residency.hostHeldBytes)] as const,
        ]
      : [["held", formatBytes(residency.heldBytes)] as const]),
    ["streamed per token", formatBytes(residency.streamedBytes)],
    ["ring", formatBytes(residency.ringBytes)],
    ...(ownMemory ? [["slots", formatBytes(residency.slotBytes)] as const] : []),
    ...(residency.kvSpilledBytes > 0
      ? [[`KV cache in ${ownMemory ? "the host's memory" : "a file"}`, formatBytes(residency.kvSpilledBytes)] as const]
      : []),
    ["KV cache, activations", `${formatBytes(residency.kvBytes)}, ${formatBytes(residency.activationBytes)}`],
    ["Node and the addon", formatBytes(residency.runtimeBytes)],
    ["context", `${residency.maxSeqLen} tokens`],
    ...(residency.placementReason ? [["placement", residency.placementReason] as const] : []),
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
