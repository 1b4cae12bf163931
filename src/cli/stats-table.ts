import type { Stats } from "../engine/contract.js";
import { formatBytes, formatDuration, formatNumber, formatRate } from "../units.js";
import { formatTable, type TableRow } from "./table.js";

/** What a run cost, for people: `--stats`, the end of a chat and the demo print it. */
export function formatStats(stats: Stats, extraRows: readonly TableRow[] = []): string {
  const busySeconds = stats.prefillSeconds + stats.decodeSeconds;
  const share = (seconds: number) => (busySeconds > 0 ? ` (${Math.round((100 * seconds) / busySeconds)} %)` : "");
  const streamed = stats.bytesPerPass > 0;
  const rows: TableRow[] = [
    ["streamed per token", streamed ? formatBytes(stats.bytesPerPass) : "nothing: the whole model is held"],
    ["held in memory", `${formatBytes(stats.heldBytes)} of ${formatBytes(stats.weightBytes)} of weights`],
  ];
  if (stats.vramBudgetBytes > 0) {
    const { deviceHeldBytes, hostHeldBytes, slotBytes } = stats;
    const host = hostHeldBytes > 0 ? `, ${formatBytes(hostHeldBytes)} copied from the host's memory` : "";
    rows.push(["on the device", `${formatBytes(deviceHeldBytes)}${host}, slots of ${formatBytes(slotBytes)}`]);
  }
  if (stats.readSeconds > 0) {
    const reason = stats.readMode === "buffered" ? ` (buffered reads: ${stats.readModeReason})` : "";
    rows.push(["disk rate", formatRate(stats.bytesStreamed / stats.readSeconds) + reason]);
  }
  for (const [name, bytes, seconds] of [
    ["KV from its file", stats.kvBytesRead, stats.kvReadSeconds],
    ["KV to its file", stats.kvBytesWritten, stats.kvWriteSeconds],
  ] as const) {
    if (bytes > 0) rows.push([name, `${formatBytes(bytes)} at ${formatRate(bytes / seconds)}`]);
  }
  rows.push(...extraRows);
  rows.push(["waiting for the disk", formatDuration(stats.ioWaitSeconds) + share(stats.ioWaitSeconds)]);
  rows.push(["computing", formatDuration(stats.computeSeconds) + share(stats.computeSeconds)]);
  rows.push(["prompt", speed(stats.promptTokens, stats.prefillSeconds)]);
  rows.push(["generated", speed(stats.generatedTokens, stats.decodeSeconds)]);
  rows.push([
    "peak memory",
    `${formatBytes(stats.peakMemoryBytes)} of ${formatBytes(stats.memoryBudgetBytes)} allowed`,
  ]);
  rows.push(["computed by", `${stats.threads} ${stats.threads === 1 ? "thread" : "threads"}, ${stats.kernels}`]);
  return formatTable(rows);
}

function speed(tokens: number, seconds: number): string {
  const count = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
  return seconds > 0 && tokens > 0 ? `${count}, ${formatNumber(tokens / seconds)} a second` : count;
}
