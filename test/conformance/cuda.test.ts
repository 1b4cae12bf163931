/** Every reference case on the CUDA device: its kernels, compiled for the host, on a driver without a GPU. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { AutoModel } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";
import { useEmulated } from "../helpers/emulated-cuda.js";
import { expectReference, fixtureCases, goldenCases, quantizedFixtures, sharedCases } from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-cuda-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

const missing =
  (await useEmulated("cuda")) ??
  native()
    .devices()
    .find(({ name }) => name === "cuda")?.reason;
const cases = [fixtureCases, quantizedFixtures, sharedCases].flatMap(goldenCases);

afterEach(() => {
  delete process.env.LAYERSTREAM_CUDA_DRIVER;
});

// Before others: what a device has computed rightly is not asked for again.
it("a device that computes wrongly is refused with what is wrong", async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  process.env.LAYERSTREAM_CUDA_DRIVER = "skip=1";
  await expect(AutoModel.fromPretrained(cases[0]?.directory ?? "", { cacheDir, device: "cuda" })).rejects.toMatchObject(
    {
      code: "DEVICE_UNAVAILABLE",
      message: expect.stringMatching(
        /'cuda' computes embed with .* weights .* wrongly: value \d+ is .* and should be .*Its driver/,
      ),
    },
  );
});

describe.each(cases.map((item) => [path.relative(process.cwd(), item.directory), item] as const))("%s", (_, item) => {
  it("streamed through CUDA", async ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const model = await AutoModel.fromPretrained(item.directory, { cacheDir, hold: false, device: "cuda" });
    await expectReference(model, item);
  });
});

it("a model on a device that is lost fails, and the next one works", async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  const [first] = cases;
  if (first === undefined) throw new Error("there are no reference cases");
  const load = () => AutoModel.fromPretrained(first.directory, { cacheDir, device: "cuda" });
  const generate = (model: Awaited<ReturnType<typeof load>>) =>
    model.generate(first.inputIds, { maxNewTokens: first.greedy.length, ignoreEos: true }).tokens();
  // Its first load has the device computing for a check of its own.
  await (await load()).dispose();
  process.env.LAYERSTREAM_CUDA_DRIVER = "lose=60";
  const lost = await load();
  await expect(generate(lost)).rejects.toMatchObject({
    code: "DEVICE_FAILED",
    message: expect.stringMatching(/CUDA_ERROR_ILLEGAL_ADDRESS.*The device is lost/),
  });
  await expect(generate(lost)).rejects.toMatchObject({ code: "DEVICE_FAILED" });
  await lost.dispose();
  delete process.env.LAYERSTREAM_CUDA_DRIVER;
  const next = await load();
  expect(await generate(next)).toEqual(first.greedy);
  await next.dispose();
});

it("a driver that is too old is refused with both versions", async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  process.env.LAYERSTREAM_CUDA_DRIVER = "version=11080";
  await expect(AutoModel.fromPretrained(fixtureCases, { cacheDir, device: "cuda" })).rejects.toMatchObject({
    code: "DEVICE_UNAVAILABLE",
    message: expect.stringMatching(/CUDA 11\.8.*Install a driver/),
  });
});
