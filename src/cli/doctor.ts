/** What `layerstream doctor` looks at, without the command line. */
import { constants, existsSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { defaultCacheDirectory } from "../checkpoint/layer-store.js";
import { availableBytes, cgroupLimitBytes, defaultBudgetBytes } from "../engine/memory.js";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { NativeDevice, NativeDeviceRates } from "../native/device-types.js";
import { formatBytes, formatRate } from "../units.js";

export interface Check {
  name: string;
  /** False where layerstream cannot work, or not as it should; `detail` then says what to do. */
  ok: boolean;
  detail: string;
  /** Of a device: what it is, and what has been measured. */
  device?: NativeDevice & Partial<NativeDeviceRates>;
}

const MEASURED_SECONDS = 0.3;

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

/** What models can run on. That there is no GPU is no failure; a device that is there and does not work is one. */
function checkDevices(): Check[] {
  try {
    return native()
      .devices()
      .filter(({ backend }) => backend !== "cpu-discrete")
      .map(checkDevice);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return [{ name: "devices", ok: false, detail: error.message }];
  }
}

function checkDevice(device: NativeDevice): Check {
  const name = `device ${device.name}`;
  if (device.reason !== undefined) return { name, ok: true, detail: `not available: ${device.reason}`, device };
  try {
    native().checkDevice(device.name, path.join(defaultCacheDirectory(), "kernels"));
    const rates = native().measureDevice(device.name, MEASURED_SECONDS, os.availableParallelism());
    return { name, ok: true, detail: describeDevice(device, rates), device: { ...device, ...rates } };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { name, ok: false, detail: error.message, device };
  }
}

function describeDevice({ kernels, kind, driver, memoryBytes = 0 }: NativeDevice, rates: NativeDeviceRates): string {
  const parts = [`${kernels} (${kind}${driver ? `, driver ${driver}` : ""})`];
  if (memoryBytes > 0) parts.push(`${formatBytes(rates.freeBytes)} free of ${formatBytes(memoryBytes)}`);
  if (rates.copyBytesPerSecond > 0) parts.push(`copies to it ${formatRate(rates.copyBytesPerSecond)}`);
  parts.push(`its memory ${formatRate(rates.memoryBytesPerSecond)}`);
  if (driver) parts.push("computes as the processor does");
  return parts.join(", ");
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
