import { expect, it } from "vitest";
import { devicesInOrder, resolveDevices, withFirstDevice } from "../../dist/engine/device.js";
import { LayerstreamError } from "../../dist/errors.js";
import { native } from "../../dist/native/binding.js";
import type { NativeDevice } from "../../dist/native/device-types.js";

function listed(backend: string, index: number, rest: Partial<NativeDevice>): NativeDevice {
  return { name: index === 0 ? backend : `${backend}:${index}`, backend, index, ...rest };
}

const cpu = listed("cpu", 0, { kind: "processor" });
const openclGpu = listed("opencl", 0, { kind: "gpu" });
const hip = listed("hip", 0, { kind: "gpu" });
const openclProcessor = listed("opencl", 1, { kind: "processor" });

const cuda = (index: number, reason?: string) => listed("cuda", index, { kind: "gpu", reason });

it.each([
  [["cpu"], [cpu]],
  [["cpu"], [cpu, listed("cuda", 0, { reason: "no driver" }), listed("opencl", 0, { kind: "processor" })]],
  [
    ["opencl", "cpu"],
    [cpu, openclGpu, openclProcessor],
  ],
  [
    ["opencl", "cpu"],
    [cpu, cuda(0, "too old"), openclGpu],
  ],
  [
    ["cuda", "cuda:1", "opencl", "cpu"],
    [cpu, cuda(0), cuda(1), openclGpu, openclProcessor],
  ],
  [
    ["cuda", "hip", "opencl", "cpu"],
    [cpu, cuda(0), hip, openclGpu],
  ],
  [
    ["cuda:1", "opencl", "cpu"],
    [cpu, cuda(0, "too old"), cuda(1), openclGpu],
  ],
] as const)("auto tries %j among %j", (expected, devices) => {
  expect(devicesInOrder(devices)).toEqual(expected);
});

it("a device is named by its backend, and by an index", () => {
  const names = ["cpu", "cpu:0", "cpu-discrete"].map((name) => resolveDevices(name).map((device) => device.name));
  expect(names.flat()).toEqual(["cpu", "cpu", "cpu-discrete"]);
  for (const { name, index, backend, reason } of native().devices()) {
    if (reason === undefined) expect(resolveDevices(`${backend}:${index}`)).toMatchObject([{ name }]);
    else expect(() => resolveDevices(name)).toThrow(expect.objectContaining({ code: "DEVICE_UNAVAILABLE" }));
  }
});

it.each(["", "gpu", "cpu:", "cpu:1", "CPU", "opencl:-1", "opencl:9999", "auto:0"])("%j is no device", (name) => {
  const message = expect.stringMatching(/^There is no device ".*"\. Here are cpu, .*auto chooses/);
  expect(() => resolveDevices(name)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT", message }));
});

it("a device that turns out to be unavailable is left out with a warning, other failures are none of it", async () => {
  const warnings: Error[] = [];
  const keep = (warning: Error) => warnings.push(warning);
  process.on("warning", keep);
  const failing = (code: "DEVICE_UNAVAILABLE" | "DEVICE_FAILED", count: number) => {
    let tried = 0;
    return (device: { name: string }) => {
      if (tried++ < count) throw new LayerstreamError(code, `${device.name} is no good.`);
      return device.name;
    };
  };
  const three = [{ name: "cuda" }, { name: "opencl" }, { name: "cpu" }] as const;
  try {
    const first = await withFirstDevice(three.slice() as [{ name: string }], failing("DEVICE_UNAVAILABLE", 0));
    expect(first).toEqual({ result: "cuda", devices: three });
    const last = await withFirstDevice(three.slice() as [{ name: string }], failing("DEVICE_UNAVAILABLE", 2));
    expect(last).toEqual({ result: "cpu", devices: [{ name: "cpu" }] });
    const none = withFirstDevice(three.slice() as [{ name: string }], failing("DEVICE_UNAVAILABLE", 3));
    await expect(none).rejects.toMatchObject({ code: "DEVICE_UNAVAILABLE", message: "cpu is no good." });
    const broken = withFirstDevice(three.slice() as [{ name: string }], failing("DEVICE_FAILED", 1));
    await expect(broken).rejects.toMatchObject({ code: "DEVICE_FAILED", message: "cuda is no good." });
    await new Promise(setImmediate);
    const texts = warnings.filter(({ name }) => name === "LayerstreamWarning").map(({ message }) => message);
    expect(texts.slice(0, 2)).toEqual([
      "cuda is no good. It is left out: opencl is used.",
      "opencl is no good. It is left out: cpu is used.",
    ]);
  } finally {
    process.off("warning", keep);
  }
});

it("a processor is not copied to", () => {
  const { freeBytes, copyBytesPerSecond, memoryBytesPerSecond } = native().measureDevice("cpu", 0.001, 1);
  expect({ freeBytes, copyBytesPerSecond }).toEqual({ freeBytes: 0, copyBytesPerSecond: 0 });
  expect(memoryBytesPerSecond).toBeGreaterThan(0);
});
