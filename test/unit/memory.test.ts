import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { availableBytes, cgroupLimitBytes, defaultBudgetBytes, runtimeMemory } from "../../dist/engine/memory.js";
import { temporaryDirectory } from "../helpers/files.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** A root directory with these files. */
function rootWith(files: Record<string, string>): string {
  const root = temporaryDirectory();
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), text);
  }
  return root;
}

const meminfo = (available: number) => `MemTotal: ${64 * 2 ** 20} kB\nMemAvailable:   ${available / 1024} kB\n`;

describe("the default budget", () => {
  it("is the free memory less a tenth where nothing limits", () => {
    const root = rootWith({ "proc/meminfo": meminfo(10 * GIB) });
    expect(availableBytes(root)).toBe(10 * GIB);
    expect(cgroupLimitBytes(root)).toBeUndefined();
    expect(defaultBudgetBytes(root, 0)).toBe(9 * GIB);
    expect(defaultBudgetBytes(rootWith({ "proc/meminfo": meminfo(GIB) }), 0)).toBe(GIB - 256 * MIB);
  });

  it("is what the tightest cgroup leaves, beside what others use in it", () => {
    const group = "sys/fs/cgroup/a/b";
    const root = rootWith({
      "proc/meminfo": meminfo(10 * GIB),
      "proc/self/cgroup": "0::/a/b\n",
      [`${group}/memory.max`]: `${4 * GIB}\n`,
      [`${group}/memory.current`]: `${3 * GIB}\n`,
      [`${group}/memory.stat`]: `anon ${GIB}\nactive_file ${GIB}\ninactive_file ${GIB / 2}\n`,
      "sys/fs/cgroup/a/memory.max": "max\n",
    });
    expect(cgroupLimitBytes(root)).toBe(4 * GIB);
    // Of 3 GiB, half are file pages, and half a GiB is this process's own: one GiB belongs to others.
    expect(defaultBudgetBytes(root, GIB / 2)).toBe(3 * GIB - Math.ceil(0.3 * GIB));
  });

  it("knows cgroups of version 1, and limits above the own group", () => {
    const top = "sys/fs/cgroup/memory";
    const root = rootWith({
      "proc/meminfo": meminfo(10 * GIB),
      "proc/self/cgroup": "5:cpu,memory:/a/b\n2:blkio:/x\n",
      [`${top}/a/b/memory.limit_in_bytes`]: "9223372036854771712\n",
      [`${top}/a/memory.limit_in_bytes`]: `${2 * GIB}\n`,
      [`${top}/a/memory.usage_in_bytes`]: `${GIB}\n`,
      [`${top}/a/memory.stat`]: `cache 5\ntotal_active_file ${GIB / 2}\ntotal_inactive_file ${GIB / 2}\n`,
    });
    expect(cgroupLimitBytes(root)).toBe(2 * GIB);
    expect(defaultBudgetBytes(root, 0)).toBe(2 * GIB - Math.ceil(0.2 * GIB));
  });
});

describe("the memory of the process", () => {
  it("is a constant for a program of the usual size", () => {
    expect(runtimeMemory(96 * MIB)).toEqual(runtimeMemory(20 * MIB));
    expect(runtimeMemory(0).mostBytes).toBe(runtimeMemory(0).bytes);
  });

  it("is counted where it is more, and what is stated holds for one that takes 8 MiB more", () => {
    // 8 MiB: what the least budget leaves anyway.
    for (let resident = 90 * MIB; resident < 700 * MIB; resident += 3 * MIB) {
      const { mostBytes } = runtimeMemory(resident);
      expect(runtimeMemory(resident + 8 * MIB).bytes).toBeLessThanOrEqual(mostBytes + 8 * MIB);
    }
  });
});
