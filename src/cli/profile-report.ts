/** `--profile` and `--trace`, the same for every command that runs a model. */
import type { Command } from "commander";
import type { Model } from "../engine/contract.js";
import type { PhaseProfile, Profile, StageProfile } from "../engine/profile.js";
import { formatCount, formatDuration, formatNumber, formatRate } from "../units.js";
import { outputFile } from "./arguments.js";

export interface ProfileOptions {
  profile?: boolean;
  trace?: string;
}

export function addProfileOptions(command: Command): Command {
  return command
    .option("--profile", "print where the time went, by stage and operator, on stderr (with --json: in `profile`)")
    .option("--trace <file>", "write what ran when as Chrome trace JSON, which ui.perfetto.dev shows", outputFile);
}

/** What the options ask for, once the model has run. The trace is written and said on stderr. */
export async function reportProfile(model: Model, options: ProfileOptions & { json?: boolean }): Promise<void> {
  if (options.profile && !options.json) process.stderr.write(`\n${formatProfile(model.profile())}\n`);
  if (options.trace === undefined) return;
  const { spans, dropped } = await model.writeTrace(options.trace);
  const older = dropped > 0 ? `; ${formatCount(dropped)} older ones no longer fitted` : "";
  process.stderr.write(`${options.trace}: ${formatCount(spans)} spans${older}\n`);
}

/** For `--json`: an object to spread into what is printed. */
export function profileField(model: Model, options: ProfileOptions): { profile?: Profile } {
  return options.profile ? { profile: model.profile() } : {};
}

export function formatProfile(profile: Profile): string {
  const parts = [];
  if (profile.prompt.passes > 0) parts.push(formatPhase("prompt", profile.prompt));
  if (profile.decode.passes > 0) parts.push(formatPhase("decode", profile.decode));
  return parts.join("\n\n");
}

/** Seconds are those of one pass; the columns of a stage's rows add up to it, and all rows to the pass and what follows it. */
function formatPhase(name: string, phase: PhaseProfile): string {
  const { passes, tokens } = phase;
  const each = (seconds: number) => [
    formatDuration(seconds / passes),
    `${((100 * seconds) / (phase.seconds || 1)).toFixed(1)} %`,
  ];
  const rows: string[][] = [["stage", "", "a pass", "share", "calls", "rate", "arithmetic"]];
  for (const stage of phase.stages) rows.push(...stageRows(stage, each, passes));
  rows.push(["JavaScript", "layerstream", ...each(phase.engineSeconds)]);
  rows.push(["", "caller", ...each(phase.callerSeconds)]);
  rows.push(["", "to a pass and back", ...each(phase.switchSeconds)]);
  rows.push(["total", "", ...each(phase.seconds)]);
  const count = `${formatCount(passes)} ${passes === 1 ? "pass" : "passes"}, ${formatCount(tokens)} ${tokens === 1 ? "token" : "tokens"}`;
  return `${name}: ${count}\n${alignColumns(rows)}`;
}

function stageRows(stage: StageProfile, each: (seconds: number) => string[], passes: number): string[][] {
  const rows: string[][] = [];
  const add = (activity: string, seconds: number, more: string[] = []) =>
    rows.push([rows.length === 0 ? stage.stage || "between stages" : "", activity, ...each(seconds), ...more]);
  for (const { activity, count, seconds, bytes, operations } of stage.activities) {
    add(activity, seconds, [
      formatNumber(count / passes),
      bytes > 0 && seconds > 0 ? formatRate(bytes / seconds) : "",
      operations > 0 && seconds > 0 ? `${formatNumber(operations / seconds / 1e9)} GFLOP/s` : "",
    ]);
  }
  if (stage.diskWaitSeconds > 0 || stage.diskBytes > 0) {
    const rate = stage.diskSeconds > 0 ? `${formatRate(stage.diskBytes / stage.diskSeconds)} read` : "";
    add("waiting for disk", stage.diskWaitSeconds, ["", rate]);
  }
  const addBeside = (activity: string, bytes: number, seconds: number) => {
    if (seconds === 0) return;
    rows.push(["", activity, `${formatDuration(seconds / passes)} beside`, "", "", formatRate(bytes / seconds)]);
  };
  addBeside("decompressing", stage.decodedBytes, stage.decodeSeconds);
  addBeside("KV from its file", stage.kvBytesRead, stage.kvReadSeconds);
  addBeside("KV to its file", stage.kvBytesWritten, stage.kvWriteSeconds);
  if (stage.copyWaitSeconds > 0) add("waiting for copies", stage.copyWaitSeconds);
  if (stage.idleSeconds > 0) add("idle", stage.idleSeconds);
  return rows;
}

/** The first two columns to the left, the others to the right. */
function alignColumns(rows: readonly string[][]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  const line = (row: string[]) =>
    row.map((cell, column) => (column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)));
  return rows.map((row) => `  ${line(row).join("  ")}`.trimEnd()).join("\n");
}
