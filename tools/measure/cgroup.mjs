/** Programs in a memory and disk cgroup of their own (Linux, root; version 1 or 2), the page cache dropped first. */
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

const root = "/sys/fs/cgroup";
let groups = 0;

/** Why programs cannot be capped here; undefined if they can. */
export function cgroupProblem() {
  if (process.platform !== "linux") return "memory is capped by Linux cgroups";
  if (process.getuid() !== 0) return "making a cgroup needs root";
  if (fs.existsSync(`${root}/memory/memory.limit_in_bytes`)) return undefined;
  const controllers = fs.existsSync(`${root}/cgroup.subtree_control`)
    ? fs.readFileSync(`${root}/cgroup.subtree_control`, "utf8")
    : "";
  return /\bmemory\b/.test(controllers) ? undefined : `${root} has no memory controller`;
}

/** The files of a group and what goes into them; `disk` is "major:minor". */
function layoutOf(name, memoryBytes, readBytesPerSecond, disk) {
  if (!fs.existsSync(`${root}/memory/memory.limit_in_bytes`)) {
    const directory = `${root}/${name}`;
    const limits = [["memory.max", memoryBytes]];
    if (readBytesPerSecond) limits.push(["io.max", `${disk} rbps=${readBytesPerSecond}`]);
    return [{ directory, limits, peak: "memory.peak", events: "memory.events" }];
  }
  const memory = `${root}/memory/${name}`;
  const parts = [
    {
      directory: memory,
      limits: [["memory.limit_in_bytes", memoryBytes]],
      peak: "memory.max_usage_in_bytes",
      events: "memory.oom_control",
    },
  ];
  if (readBytesPerSecond) {
    const limits = [["blkio.throttle.read_bps_device", `${disk} ${readBytesPerSecond}`]];
    parts.push({ directory: `${root}/blkio/${name}`, limits });
  }
  return parts;
}

/** The whole disk that `file` lies on: throttles know no partitions. */
function diskOf(file) {
  const { dev } = fs.statSync(file);
  const number = `${Number((BigInt(dev) >> 8n) & 0xfffn)}:${Number(BigInt(dev) & 0xffn)}`;
  const place = fs.realpathSync(`/sys/dev/block/${number}`);
  const whole = fs.existsSync(`${place}/partition`) ? path.dirname(place) : place;
  return fs.readFileSync(`${whole}/dev`, "utf8").trim();
}

export function dropPageCache() {
  spawnSync("sync");
  fs.writeFileSync("/proc/sys/vm/drop_caches", "3");
}

/**
 * Runs `command` (program and arguments) with at most `memoryBytes`, page cache included, and, if given, so many bytes a
 * second read from the disk that `file` lies on.
 *
 * @returns {Promise<{ code: number | null, stdout: string, stderr: string, peakBytes: number, oomKills: number }>}
 */
export async function runCapped(command, { memoryBytes, readBytesPerSecond, file }) {
  const name = `layerstream-${process.pid}-${groups++}`;
  const parts = layoutOf(name, memoryBytes, readBytesPerSecond, readBytesPerSecond && diskOf(file));
  const made = [];
  try {
    for (const { directory, limits } of parts) {
      fs.mkdirSync(directory);
      made.push(directory);
      for (const [limit, value] of limits) fs.writeFileSync(path.join(directory, limit), String(value));
    }
    dropPageCache();
    const outcome = await run(command, made);
    const [{ directory, peak, events }] = parts;
    const read = (entry) => fs.readFileSync(path.join(directory, entry), "utf8");
    const oomKills = Number(/^oom_kill (\d+)$/m.exec(read(events))?.[1] ?? 0);
    return { ...outcome, peakBytes: Number(read(peak)), oomKills };
  } finally {
    for (const directory of made) await removeGroup(directory);
  }
}

/** The shell joins the groups before it becomes the program: nothing of it is charged elsewhere. */
function run(command, directories) {
  const join = directories.map((directory) => `echo $$ > ${directory}/cgroup.procs && `).join("");
  return new Promise((resolve, reject) => {
    const child = spawn("/bin/sh", ["-c", `${join}exec "$@"`, "sh", ...command], { stdio: ["ignore", "pipe", "pipe"] });
    const output = { stdout: "", stderr: "" };
    for (const stream of ["stdout", "stderr"]) {
      child[stream].setEncoding("utf8").on("data", (text) => {
        output[stream] += text;
      });
    }
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
}

/** A group is busy for a moment after its last process has ended. */
async function removeGroup(directory) {
  for (let attempt = 0; ; attempt++) {
    try {
      fs.rmdirSync(directory);
      return;
    } catch (error) {
      if (error.code !== "EBUSY" || attempt === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
