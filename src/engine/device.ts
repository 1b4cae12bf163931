import { existsSync } from "node:fs";
import { totalmem } from "node:os";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { NativeDevice } from "../native/device-types.js";
import { formatBytes } from "../units.js";
import { availableBytes, defaultBudgetBytes } from "./memory.js";

/** Left of a device's memory to drivers and other programs when the user names no budget. */
const SPARE_SHARE = 0.1;
const SPARE_BYTES_MIN = 256 * 2 ** 20;

export interface ResolvedDevice {
  /** As native code takes it. */
  name: string;
  /** Absent where it uses the host's memory. `shared`: it is a processor, whose own memory is the host's under another name. */
  memory?: { bytes: number; shared: boolean };
}

export interface Budgets {
  budgetBytes: number;
  vram?: { budgetBytes: number; memoryBytes: number };
}

/** One of these is there wherever Linux has a GPU: of any maker, NVIDIA, AMD for compute, under WSL, Mali, Adreno. */
const GPU_NODES = ["/dev/dri", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/mali0", "/dev/kgsl-3d0"];

/**
 * Drivers take tens of milliseconds and MiB to load, also to say that they have no device: without a GPU they are not asked.
 */
function mayHaveGpu(): boolean {
  return process.platform !== "linux" || GPU_NODES.some((node) => existsSync(node));
}

/**
 * GPUs in the order of the native registry, which has backends of one maker before OpenCL, through which the same GPU may be
 * there again; then the processor, which is never used through OpenCL.
 */
export function devicesInOrder(devices: readonly NativeDevice[]): string[] {
  const gpus = devices.filter(({ kind, reason }) => kind === "gpu" && reason === undefined);
  return [...gpus.map(({ name }) => name), "cpu"];
}

/**
 * The devices that models may run on when a user asks for `name`, the first choice first: several for "auto", one for the
 * name of a backend, which is its first device, or with an index, as "opencl:1".
 *
 * @throws INVALID_ARGUMENT for a device that does not exist, DEVICE_UNAVAILABLE for one that cannot run here
 */
export function resolveDevices(name: string): [ResolvedDevice, ...ResolvedDevice[]] {
  if (name === "cpu" || (name === "auto" && !mayHaveGpu())) return [{ name: "cpu" }];
  const devices = native().devices();
  if (name === "auto") {
    const [first = "cpu", ...others] = devicesInOrder(devices);
    return [withMemory(devices, first), ...others.map((other) => withMemory(devices, other))];
  }
  const asked = name.replace(/:0$/, "");
  const found = devices.find((device) => device.name === asked);
  if (found === undefined) {
    const names = devices.filter(({ reason }) => reason === undefined).map((device) => device.name);
    throw new LayerstreamError("INVALID_ARGUMENT", `There is no device ${JSON.stringify(name)}.`, {
      remedy: `Here are ${names.join(", ")}; auto chooses. See layerstream doctor.`,
    });
  }
  if (found.reason === undefined) return [withMemory(devices, found.name)];
  throw new LayerstreamError("DEVICE_UNAVAILABLE", `The device ${JSON.stringify(name)} cannot be used here.`, {
    remedy: found.reason,
  });
}

/**
 * Runs `action` with the first of `devices` that it does not find unavailable. Why others are left out is a warning of the
 * process. Comes back with the result: the devices from that one on.
 */
export async function withFirstDevice<Result>(
  devices: readonly [ResolvedDevice, ...ResolvedDevice[]],
  action: (device: ResolvedDevice) => Promise<Result> | Result,
): Promise<{ result: Result; devices: [ResolvedDevice, ...ResolvedDevice[]] }> {
  const [first, second, ...others] = devices;
  try {
    return { result: await action(first), devices: second === undefined ? [first] : [first, second, ...others] };
  } catch (error) {
    if (!(error instanceof LayerstreamError) || error.code !== "DEVICE_UNAVAILABLE" || second === undefined)
      throw error;
    process.emitWarning(`${error.message} It is left out: ${second.name} is used.`, "LayerstreamWarning");
    return withFirstDevice([second, ...others], action);
  }
}

function withMemory(devices: readonly NativeDevice[], name: string): ResolvedDevice {
  const { unified = true, memoryBytes = 0, kind } = devices.find((device) => device.name === name) ?? {};
  return unified ? { name } : { name, memory: { bytes: memoryBytes || totalmem(), shared: kind === "processor" } };
}

/**
 * The budgets that a user asks for, in bytes, and for those left out what is free, less a margin.
 *
 * @throws INVALID_ARGUMENT for a vram budget of a device without memory of its own, VRAM_BUDGET_TOO_LARGE for more than is free
 */
export function chooseBudgets(device: ResolvedDevice, asked: { memory?: number; vram?: number }): Budgets {
  if (device.memory === undefined) {
    if (asked.vram === undefined) return { budgetBytes: asked.memory ?? defaultBudgetBytes() };
    throw new LayerstreamError(
      "INVALID_ARGUMENT",
      `The device ${device.name} has no memory of its own for a vram budget.`,
      {
        remedy: "Give a memory budget instead, or another device.",
      },
    );
  }
  const freeBytes = native().deviceFreeBytes(device.name) || availableBytes();
  if (asked.vram !== undefined && asked.vram > freeBytes) {
    throw new LayerstreamError(
      "VRAM_BUDGET_TOO_LARGE",
      `A vram budget of ${formatBytes(asked.vram)} exceeds the ${formatBytes(freeBytes)} that are free on ${device.name}.`,
      { remedy: "Give it less, or end what else uses the device." },
    );
  }
  const spared = Math.floor(freeBytes - Math.max(SPARE_BYTES_MIN, freeBytes * SPARE_SHARE));
  const vram = (budgetBytes: number) => ({
    budgetBytes: Math.max(0, budgetBytes),
    memoryBytes: device.memory?.bytes ?? 0,
  });
  if (!device.memory.shared) {
    return { budgetBytes: asked.memory ?? defaultBudgetBytes(), vram: vram(asked.vram ?? spared) };
  }
  // Both come out of the same memory: what is not named is half of it, or what the other leaves.
  const both = defaultBudgetBytes();
  const memory = asked.memory ?? Math.floor(asked.vram === undefined ? both / 2 : both - asked.vram);
  return { budgetBytes: Math.max(0, memory), vram: vram(asked.vram ?? Math.min(spared, both - memory)) };
}
