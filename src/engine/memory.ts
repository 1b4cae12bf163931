/** What memory there is for this process, and what it uses. */
import { readFileSync } from "node:fs";
import { freemem } from "node:os";

const MIB = 2 ** 20;

/** Left to the system and to other programs when the user names no budget. */
const SPARE_SHARE = 0.1;
const SPARE_BYTES_MIN = 256 * MIB;

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Limit of the innermost memory cgroup (v2, then v1) that sets one, in bytes; undefined without one. */
export function cgroupLimitBytes(): number | undefined {
  const limits: number[] = [];
  for (const line of (readText("/proc/self/cgroup") ?? "").split("\n")) {
    const [, controllers, path] = line.split(":");
    if (path === undefined) continue;
    const root = controllers === "" ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    const file = controllers === "" ? "memory.max" : "memory.limit_in_bytes";
    if (controllers !== "" && !controllers?.split(",").includes("memory")) continue;
    // A limit anywhere above holds too. Inside containers the path may not exist: the root is then the own group.
    const parts = path.split("/").filter(Boolean);
    for (let depth = parts.length; depth >= 0; depth--) {
      const limit = Number(readText([root, ...parts.slice(0, depth), file].join("/")));
      if (Number.isFinite(limit) && limit > 0 && limit < 2 ** 60) limits.push(limit);
    }
  }
  return limits.length > 0 ? Math.min(...limits) : undefined;
}

/** Bytes that could be had without swapping; page cache counts as free. */
export function availableBytes(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readText("/proc/meminfo") ?? "");
  return match ? Number(match[1]) * 1024 : freemem();
}

/** The budget when the user names none: what free memory and the cgroup allow, less something to spare. */
export function defaultBudgetBytes(): number {
  const free = availableBytes() + residentBytes();
  const ceiling = Math.min(free, cgroupLimitBytes() ?? Number.POSITIVE_INFINITY);
  return Math.max(0, Math.floor(ceiling - Math.max(SPARE_BYTES_MIN, ceiling * SPARE_SHARE)));
}

/** Resident size of this process now, bytes. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** Largest resident size so far, bytes. */
export function peakResidentBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}
