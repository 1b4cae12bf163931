/** Drivers of OpenCL that are absent or broken, and two programs on one device. */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decompose } from "../../dist/decompose/decompose.js";
import { native } from "../../dist/native/binding.js";
import { runCli, temporaryDirectory } from "../e2e/run-cli.js";
import { fixtureCases, readCase } from "../helpers/golden.js";

const { directory, remove } = temporaryDirectory();
afterAll(remove);

const { directory: checkpoint, inputIds, greedy } = readCase(path.join(fixtureCases, "llama"));
const store = path.join(directory, "store");
beforeAll(() => decompose({ checkpoint, store }));

const generate = (device: string, env?: Record<string, string>) =>
  runCli(
    [
      ...["generate", store, "--tokens", inputIds.join(","), "--max-new-tokens", "4", "--ignore-eos", "--json"],
      ...["--device", device, "--cache-dir", path.join(directory, "cache")],
    ],
    { env },
  );

const reason = native()
  .devices()
  .find(({ name }) => name === "opencl")?.reason;

describe.skipIf(process.platform !== "linux" || reason?.includes("no OpenCL loader"))("a driver", () => {
  it.each([
    ["that is absent", undefined, /finds no device\. Install/],
    ["whose library is missing", "libabsent.so.1", /absent\.icd cannot be loaded .*libabsent\.so\.1/],
    ["whose file is empty", "", /empty\.icd names no driver/],
    ["whose library is none", "libm.so.6", /libm\.so\.6, which .* is no OpenCL driver/],
  ])("%s is named, and the processor computes", async (_, library, message) => {
    const vendors = temporaryDirectory();
    try {
      const file = library === "" ? "empty.icd" : "absent.icd";
      if (library !== undefined) writeFileSync(path.join(vendors.directory, file), library);
      const env = { OCL_ICD_VENDORS: vendors.directory };
      const { exitCode, stdout, stderr } = await generate("opencl", env);
      expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
      expect(stderr).toMatch(/^layerstream: DEVICE_UNAVAILABLE: The device "opencl" cannot be used here\./);
      expect(stderr).toMatch(message);
      if (library === undefined) expect((await generate("auto", env)).exitCode).toBe(0);
    } finally {
      vendors.remove();
    }
  });
});

// Compiling what both of them need takes most of the time.
const timeout = 240_000;

it.skipIf(reason !== undefined)("two programs use one device and one cache of kernels", { timeout }, async () => {
  const results = await Promise.all([generate("opencl"), generate("opencl")]);
  for (const { exitCode, stdout, stderr } of results) {
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(JSON.parse(stdout).tokens).toEqual(greedy.slice(0, 4));
  }
});
