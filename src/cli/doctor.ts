/** What `layerstream doctor` looks at, without the command line. */
import { constants, existsSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { availableBytes, cgroupLimitBytes, defaultBudgetBytes } from "../engine/memory.js";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { formatBytes } from "../units.js";

export interface Check {
  name: string;
  /** False where layerstream cannot work, or not as it should; `detail` then says what to do. */
  ok: boolean;
  detail: string;
}

/** Examines this machine; `directory` is where models would lie. */
export async function examine(directory: string): Promise<Check[]> {
  return [
    checkNode(),
    checkAddon(),
    {
      name: "processor",
      ok: true,
      detail: `${os.availableParallelism()} threads, ${os.cpus()[0]?.model ?? os.arch()}`,
    },
    checkKernels(),
    checkMemory(),
    await checkDirectReads(directory),
    ...checkDevices(),
  ];
}

function checkNode(): Check {
  const detail = `${process.version} on ${process.platform} ${process.arch}, kernel ${os.release()}`;
  return { name: "Node.js", ok: Number.parseInt(process.versions.node, 10) >= 20, detail };
}

function checkAddon(): Check {
  try {
    native();
    return { name: "native addon", ok: true, detail: "loads" };
  } catch (error) {
    if (!(error instanceof LayerstreamError)) throw error;
    return { name: "native addon", ok: false, detail: error.message };
  }
}

/** Which instruction set computes, and what its two precisions are. */
function checkKernels(): Check {
  const name = "kernels";
  try {
    const kernels = native().cpuKernels();
    const fast = kernels.includes("vnni")
      ? "products in integers with --precision fast (the default), in float32 with --precision exact"
      : "products in float32, whatever --precision says";
    return { name, ok: true, detail: `${kernels}: ${fast}` };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { name, ok: false, detail: error.message };
  }
}

/** Devices beside the processor. Their absence is no failure. */
function checkDevices(): Check[] {
  const own = ["cpu", "cpu-discrete"];
  try {
    const others = native()
      .devices()
      .filter((device) => !own.includes(device.name));
    return others.map(({ name, kernels, reason }) => ({
      name: `device ${name}`,
      ok: true,
      detail: kernels ?? `not available: ${reason}`,
    }));
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return [{ name: "devices", ok: false, detail: error.message }];
  }
}

function checkMemory(): Check {
  const limit = cgroupLimitBytes();
  const free = `${formatBytes(availableBytes())} available of ${formatBytes(os.totalmem())}`;
  const limited = limit === undefined || limit >= os.totalmem() ? "" : `, limited to ${formatBytes(limit)} by a cgroup`;
  const detail = `${free}${limited}; budget without --memory: ${formatBytes(defaultBudgetBytes())}`;
  return { name: "memory", ok: true, detail };
}

/** Opens a scratch file in `directory` the way weights are read: past the page cache. */
async function checkDirectReads(directory: string): Promise<Check> {
  const name = `direct reads in ${directory}`;
  if (!existsSync(directory)) return { name, ok: false, detail: "no such directory; name another with --directory" };
  if (constants.O_DIRECT === undefined) return { name, ok: true, detail: `${process.platform} has its own way` };
  let scratch: string | undefined;
  try {
    scratch = await mkdtemp(path.join(directory, ".layerstream-doctor-"));
    const file = await open(path.join(scratch, "probe"), constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT);
    await file.close();
    return { name, ok: true, detail: "supported" };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EINVAL") {
      return { name, ok: true, detail: "refused by the file system: reads go through the page cache, which is slower" };
    }
    return { name, ok: false, detail: `not possible (${code}); name a writable directory with --directory` };
  } finally {
    if (scratch) await rm(scratch, { recursive: true, force: true });
  }
}
