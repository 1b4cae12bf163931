import { existsSync } from "node:fs";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { NativeDevice } from "../native/types.js";

/** One of these is there wherever Linux has a GPU: of any maker, NVIDIA, AMD for compute, under WSL, Mali, Adreno. */
const GPU_NODES = ["/dev/dri", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/mali0", "/dev/kgsl-3d0"];

/**
 * Drivers take tens of milliseconds and MiB to load, also to say that they have no device: without a GPU they are not asked.
 */
function mayHaveGpu(): boolean {
  return process.platform !== "linux" || GPU_NODES.some((node) => existsSync(node));
}

/** The first CUDA device, else the first GPU through OpenCL, else the processor, which is never used through OpenCL. */
export function chooseDevice(devices: readonly NativeDevice[]): string {
  const gpus = devices.filter(({ kind, reason }) => kind === "gpu" && reason === undefined);
  const chosen = gpus.find(({ backend }) => backend === "cuda") ?? gpus[0];
  return chosen?.name ?? "cpu";
}

/**
 * The device that models run on when a user asks for `name`: "auto", the name of a backend, which is its first device, or
 * with an index, as "opencl:1".
 *
 * @throws INVALID_ARGUMENT for a device that does not exist, DEVICE_UNAVAILABLE for one that cannot run here
 */
export function resolveDevice(name: string): string {
  if (name === "cpu" || (name === "auto" && !mayHaveGpu())) return "cpu";
  const devices = native().devices();
  if (name === "auto") return chooseDevice(devices);
  const asked = name.replace(/:0$/, "");
  const found = devices.find((device) => device.name === asked);
  if (found === undefined) {
    const names = devices.filter(({ reason }) => reason === undefined).map((device) => device.name);
    throw new LayerstreamError("INVALID_ARGUMENT", `There is no device ${JSON.stringify(name)}.`, {
      remedy: `Here are ${names.join(", ")}; auto chooses. See layerstream doctor.`,
    });
  }
  if (found.reason === undefined) return found.name;
  throw new LayerstreamError("DEVICE_UNAVAILABLE", `The device ${JSON.stringify(name)} cannot be used here.`, {
    remedy: found.reason,
  });
}
