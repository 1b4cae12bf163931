import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { decompose } from "../../dist/decompose/decompose.js";
import { type CheckpointOptions, writeCheckpoint } from "../helpers/checkpoint.js";
import { startDecompose } from "../helpers/child.js";
import { hashFiles, temporaryDirectory } from "../helpers/files.js";

function workplace(options: CheckpointOptions): { checkpoint: string; store: string; reference: string } {
  const directory = temporaryDirectory();
  const [checkpoint, store, reference] = ["checkpoint", "store", "reference"].map((name) => path.join(directory, name));
  writeCheckpoint(checkpoint as string, options);
  return { checkpoint, store, reference } as { checkpoint: string; store: string; reference: string };
}

/** Files that the journal of an unfinished store has as finished: name to what changes when they are written again. */
function finishedFiles(store: string): Record<string, string> {
  const journal = path.join(store, "layerstream.partial.json");
  if (!existsSync(journal)) return {};
  const { finished } = JSON.parse(readFileSync(journal, "utf8")) as { finished: Record<string, string> };
  return stampsOf(store, Object.keys(finished));
}

function stampsOf(store: string, names: string[]): Record<string, string> {
  const stamp = (name: string) => {
    const { ino, mtimeMs, size } = statSync(path.join(store, name));
    return `${ino} ${mtimeMs} ${size}`;
  };
  return Object.fromEntries(names.map((name) => [name, stamp(name)]));
}

describe("decompose, killed", () => {
  it.each([
    ["8bit", "bf16", {}],
    ["lossless", "bf16", {}],
    ["lossless", "LZ4", { dtype: "F16", hidden: 256, intermediate: 300, zeros: true }],
  ] as const)("before a change to the file system, is taken up again (%s, %s)", async (compression, _, shape) => {
    const options = { compression, workers: 2 } as const;
    const { checkpoint, store, reference } = workplace(shape);
    const { steps = 0 } = await startDecompose({ checkpoint, store: reference, ...options }).result;
    const expected = hashFiles(reference);
    expect(steps).toBeGreaterThan(20);
    for (const fraction of [0, 0.08, 0.15, 0.3, 0.5, 0.75, 0.9, 0.95, 1]) {
      const killAtStep = Math.round(1 + fraction * (steps - 1));
      const { signal } = await startDecompose({ checkpoint, store, ...options }, { killAtStep }).result;
      expect(signal, `step ${killAtStep}`).toBe("SIGKILL");

      const finished = finishedFiles(store);
      await decompose({ checkpoint, store, ...options });
      expect(stampsOf(store, Object.keys(finished)), `step ${killAtStep}`).toEqual(finished);
      expect(hashFiles(store), `step ${killAtStep}`).toEqual(expected);
      rmSync(store, { recursive: true });
    }
  });

  it("in the middle of a file, is taken up again", async () => {
    const { checkpoint, store, reference } = workplace({ hidden: 256, vocab: 120_000, zeros: true });
    await decompose({ checkpoint, store: reference });
    const { process: child, result } = startDecompose({ checkpoint, store, workers: 1 });
    while (!isHalfWritten(store) && child.exitCode === null) await sleep(1);
    child.kill("SIGKILL");
    await result;
    await decompose({ checkpoint, store });
    expect(hashFiles(store)).toEqual(hashFiles(reference));
  });

  function isHalfWritten(store: string): boolean {
    if (!existsSync(store)) return false;
    const temporary = readdirSync(store).find((name) => name.endsWith(".safetensors.tmp"));
    return temporary !== undefined && (statSync(path.join(store, temporary), { throwIfNoEntry: false })?.size ?? 0) > 0;
  }
});
