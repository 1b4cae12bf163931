/** What memory there is for this process, and what it uses. */
import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";

const MIB = 2 ** 20;

/** Left to the system and to other programs when the user names no budget. */
const SPARE_SHARE = 0.1;
const SPARE_BYTES_MIN = 256 * MIB;
/** Node, this program, the addon and a worker: 82 to 93 MiB with Node 20. */
const RUNTIME_BYTES = 96 * MIB;
/** What exceeds that is stated in such steps: processes that do the same differ by some MiB. */
const RUNTIME_STEP_BYTES = 32 * MIB;
const RUNTIME_VARIATION_BYTES = 24 * MIB;
/** A cgroup has nobody else to spare for but what runs in it beside this process. */
const GROUP_SPARE_BYTES_MIN = 64 * MIB;

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

interface Group {
  limitBytes: number;
  /** Charged to the group and not reclaimable: without file pages that can be dropped. */
  usedBytes: number;
}

/** Memory cgroups (v2 and v1) around this process that set a limit. `root` is for tests. */
function limitedGroups(root: string): Group[] {
  const groups: Group[] = [];
  for (const line of (readText(join(root, "proc/self/cgroup")) ?? "").split("\n")) {
    const [, controllers, path] = line.split(":");
    if (path === undefined) continue;
    const unified = controllers === "";
    if (!unified && !controllers?.split(",").includes("memory")) continue;
    const top = join(root, unified ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    // A limit anywhere above holds too. Inside containers the path may not exist: the root is then the own group.
    const parts = path.split("/").filter(Boolean);
    for (let depth = parts.length; depth >= 0; depth--) {
      const group = readGroup(join(top, ...parts.slice(0, depth)), unified);
      if (group) groups.push(group);
    }
  }
  return groups;
}

function readGroup(directory: string, unified: boolean): Group | undefined {
  const number = (file: string) => Number(readText(join(directory, file)) ?? Number.NaN);
  const limitBytes = number(unified ? "memory.max" : "memory.limit_in_bytes");
  if (!(limitBytes > 0 && limitBytes < 2 ** 60)) return undefined;
  const usage = number(unified ? "memory.current" : "memory.usage_in_bytes");
  const statistics = readText(join(directory, "memory.stat")) ?? "";
  const files = (unified ? ["inactive_file", "active_file"] : ["total_inactive_file", "total_active_file"]).map(
    (name) => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(statistics)?.[1] ?? 0),
  );
  const fileBytes = files.reduce((sum, bytes) => sum + bytes, 0);
  return { limitBytes, usedBytes: Math.max(0, (usage || 0) - fileBytes) };
}

/** Limit of the innermost memory cgroup (v2, then v1) that sets one, in bytes; undefined without one. */
export function cgroupLimitBytes(root = "/"): number | undefined {
  const limits = limitedGroups(root).map(({ limitBytes }) => limitBytes);
  return limits.length > 0 ? Math.min(...limits) : undefined;
}

/** Bytes that could be had without swapping; page cache counts as free. */
export function availableBytes(root = "/"): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readText(join(root, "proc/meminfo")) ?? "");
  return match ? Number(match[1]) * 1024 : freemem();
}

/**
 * The budget when the user names none: what free memory and every cgroup leave to this process, beside what others use
 * in it, less something to spare.
 */
export function defaultBudgetBytes(root = "/", ownBytes = residentBytes()): number {
  const less = (bytes: number, least: number) => bytes - Math.max(least, bytes * SPARE_SHARE);
  const free = less(availableBytes(root) + ownBytes, SPARE_BYTES_MIN);
  const groups = limitedGroups(root).map(({ limitBytes, usedBytes }) =>
    less(limitBytes - Math.max(0, usedBytes - ownBytes), GROUP_SPARE_BYTES_MIN),
  );
  return Math.max(0, Math.floor(Math.min(free, ...groups)));
}

export interface RuntimeMemory {
  /** Taken by this process. */
  bytes: number;
  /** That other processes of the same program may take: a budget that one of them names must work in all. */
  mostBytes: number;
}

/** What a process takes before a model is in it. Usually a constant; more is counted where `resident` is larger. */
export function runtimeMemory(resident = residentBytes()): RuntimeMemory {
  if (resident <= RUNTIME_BYTES) return { bytes: RUNTIME_BYTES, mostBytes: RUNTIME_BYTES };
  const steps = Math.ceil((resident + RUNTIME_VARIATION_BYTES - RUNTIME_BYTES) / RUNTIME_STEP_BYTES);
  return { bytes: resident, mostBytes: RUNTIME_BYTES + steps * RUNTIME_STEP_BYTES };
}

/** Resident size of this process now, bytes. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** Largest resident size so far, bytes. */
export function peakResidentBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}
