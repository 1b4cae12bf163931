/** Reference cases on the HIP device: CUDA's kernels through HIP's functions, on a runtime without a GPU. All cases: cuda.test.ts. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, it } from "vitest";
import { AutoModel } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";
import { useEmulated } from "../helpers/emulated-cuda.js";
import { expectReference, fixtureCases, readCase } from "../helpers/golden.js";

const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-hip-"));
afterAll(() => rmSync(cacheDir, { recursive: true, force: true }));

const missing =
  (await useEmulated("hip")) ??
  native()
    .devices()
    .find(({ name }) => name === "hip")?.reason;

describe.each(["llama_gqa3_sharded", "mixtral_bf16", "gpt_oss_sinks"])("%s", (name) => {
  it.for([true, false])("through HIP, held %s", async (hold, { skip }) => {
    if (missing !== undefined) skip(missing);
    const item = readCase(path.join(fixtureCases, name));
    const model = await AutoModel.fromPretrained(item.directory, { cacheDir, hold, device: "hip" });
    await expectReference(model, item);
  });
});
