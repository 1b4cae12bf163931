import { expect, it } from "vitest";
import { chooseDevice, resolveDevice } from "../../dist/engine/device.js";
import { native } from "../../dist/native/binding.js";
import type { NativeDevice } from "../../dist/native/types.js";

function listed(backend: string, index: number, rest: Partial<NativeDevice>): NativeDevice {
  return { name: index === 0 ? backend : `${backend}:${index}`, backend, index, ...rest };
}

const cpu = listed("cpu", 0, { kind: "processor" });
const openclGpu = listed("opencl", 0, { kind: "gpu" });
const hip = listed("hip", 0, { kind: "gpu" });
const openclProcessor = listed("opencl", 1, { kind: "processor" });

it.each([
  ["cpu", [cpu]],
  ["cpu", [cpu, listed("opencl", 0, { kind: "processor" }), listed("cuda", 0, { reason: "no driver" })]],
  ["opencl", [cpu, openclGpu, openclProcessor]],
  ["opencl", [cpu, openclGpu, listed("cuda", 0, { kind: "gpu", reason: "too old" })]],
  ["cuda", [cpu, openclGpu, openclProcessor, listed("cuda", 0, { kind: "gpu" }), listed("cuda", 1, { kind: "gpu" })]],
  ["hip", [cpu, openclGpu, hip, listed("cuda", 0, { reason: "no driver" })]],
  ["cuda", [cpu, openclGpu, hip, listed("cuda", 0, { kind: "gpu" })]],
  ["cuda:1", [cpu, openclGpu, listed("cuda", 0, { reason: "too old" }), listed("cuda", 1, { kind: "gpu" })]],
] as const)("auto is %s among %j", (expected, devices) => {
  expect(chooseDevice(devices)).toBe(expected);
});

it("a device is named by its backend, and by an index", () => {
  const names = ["cpu", "cpu:0", "cpu-discrete"].map((name) => resolveDevice(name).name);
  expect(names).toEqual(["cpu", "cpu", "cpu-discrete"]);
  for (const { name, index, backend, reason } of native().devices()) {
    if (reason === undefined) expect(resolveDevice(`${backend}:${index}`).name).toBe(name);
    else expect(() => resolveDevice(name)).toThrow(expect.objectContaining({ code: "DEVICE_UNAVAILABLE" }));
  }
});

it.each(["", "gpu", "cpu:", "cpu:1", "CPU", "opencl:-1", "opencl:9999", "auto:0"])("%j is no device", (name) => {
  const message = expect.stringMatching(/^There is no device ".*"\. Here are cpu, .*auto chooses/);
  expect(() => resolveDevice(name)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT", message }));
});

it("a processor is not copied to", () => {
  const { freeBytes, copyBytesPerSecond, memoryBytesPerSecond } = native().measureDevice("cpu", 0.001, 1);
  expect({ freeBytes, copyBytesPerSecond }).toEqual({ freeBytes: 0, copyBytesPerSecond: 0 });
  expect(memoryBytesPerSecond).toBeGreaterThan(0);
});
