import path from "node:path";
import { expect, it } from "vitest";
import { writeCheckpoint } from "../helpers/checkpoint.js";
import { startDecompose } from "../helpers/child.js";
import { temporaryDirectory } from "../helpers/files.js";

it("decomposes a tensor of 256 MiB in less memory than that", async () => {
  const directory = temporaryDirectory();
  const checkpoint = path.join(directory, "checkpoint");
  writeCheckpoint(checkpoint, { hidden: 1024, vocab: 131_072, layers: 1, tied: true, zeros: true });
  const { code, peakKiB = Number.POSITIVE_INFINITY } = await startDecompose({
    checkpoint,
    store: path.join(directory, "store"),
    compression: "8bit",
    workers: 4,
  }).result;
  expect(code).toBeUndefined();
  expect(peakKiB).toBeLessThan(200 * 1024);
});
