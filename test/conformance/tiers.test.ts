/** Three tiers: any pair of budgets gives the same bits, and both are kept. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoModel, decompose, type LoadOptions } from "../../dist/index.js";
import { native } from "../../dist/native/binding.js";
import { fixtureCases, goldenCases, relativeError } from "../helpers/golden.js";
import { makeCheckpoint, type Outcome, outcomeOf, scatteredTokens } from "../helpers/random-models.js";

const MIB = 2 ** 20;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-tiers-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const plain = path.join(directory, "plain");
const mixture = path.join(directory, "mixture");
const cacheDir = path.join(directory, "cache");

const outcome = (store: string, load: LoadOptions, promptTokens = 20) =>
  outcomeOf({
    path: store,
    load: { maxSeqLen: promptTokens < 200 ? 256 : 1024, cacheDir, ...load },
    prompt: scatteredTokens(promptTokens, 1999),
    newTokens: 3,
  });

const held = (store: string, device: string) => outcome(store, { device, memory: "2GiB", vram: "2GiB" });

interface Shares {
  memory: number;
  vram: number;
  placement?: LoadOptions["placement"];
}

/** A run whose budgets are the least ones and shares of the weights, against one that holds everything on the device. */
async function checkTiers(store: string, device: string, all: Outcome, shares: Shares) {
  const { minimumBytes, minimumVramBytes } = all.residency;
  const budget = (least: number, share: number) => Math.ceil((least + share * all.stats.weightBytes) / MIB) * MIB;
  const budgets = { memory: budget(minimumBytes, shares.memory), vram: budget(minimumVramBytes, shares.vram) };
  const load = { device, placement: shares.placement, ...budgets };
  const other = await outcome(store, load);
  expect(other.code, other.message).toBeUndefined();
  expect(other.hash).toBe(all.hash);
  expect(other.tokens).toEqual(all.tokens);
  expect(other.stats.slotBytes).toBeGreaterThan(0);
  // The memory of such a device is the process's, too.
  if (device === "cpu-discrete") expect(other.peakBytes).toBeLessThan(load.memory + load.vram);
  return other.residency;
}

beforeAll(async () => {
  await makeCheckpoint(
    `${plain}-checkpoint`,
    "--hidden 1024 --intermediate 2752 --heads 16 --kv-heads 4 --layers 10 --vocab 1999 --dtype bf16",
  );
  await decompose({ checkpoint: `${plain}-checkpoint`, store: plain });
});

it.for(["cpu-discrete", "opencl"])(
  "held on %s, held in the host's memory, streamed and mixed agree bit for bit",
  async (device, { skip }) => {
    const reason = native()
      .devices()
      .find(({ backend }) => backend === device)?.reason;
    if (reason !== undefined) skip(reason);
    const all = await held(plain, device);
    expect(all.code, all.message).toBeUndefined();
    expect(all.residency).toMatchObject({
      streamedBytes: 0,
      hostHeldBytes: 0,
      deviceHeldBytes: all.residency.heldBytes,
    });

    const mixed = await checkTiers(plain, device, all, { memory: 0.1, vram: 0.3 });
    expect(Math.min(mixed.deviceHeldBytes, mixed.hostHeldBytes, mixed.streamedBytes)).toBeGreaterThan(8 * MIB);
    const host = await checkTiers(plain, device, all, { memory: 1.1, vram: 0 });
    expect(host.streamedBytes).toBe(0);
    expect(host.hostHeldBytes).toBeGreaterThan(0.9 * all.residency.heldBytes);
    if (device === "opencl") return;
    const least = await checkTiers(plain, device, all, { memory: 0, vram: 0 });
    expect(least.streamedBytes).toBeGreaterThan(0.5 * all.residency.heldBytes);
  },
);

describe("MLPs that the processor computes beside a device", () => {
  it("give the same bits where kernels are the same, within both budgets", async () => {
    const device = "cpu-discrete";
    const all = await held(plain, device);
    for (const shares of [
      { memory: 0.2, vram: 0.4 },
      { memory: 1.1, vram: 0.1 },
    ]) {
      const residency = await checkTiers(plain, device, all, { ...shares, placement: "cpu" });
      const placed = residency.stages.filter(({ placement }) => placement === "cpu");
      expect(placed.length).toBeGreaterThan(3);
      expect(placed.every(({ stage, deviceHeldBytes }) => stage.endsWith(".mlp") && deviceHeldBytes === 0)).toBe(true);
      expect(residency.placementReason).toMatch(/^\d+ of 22 stages run on the processor: as asked\.$/);
    }
  });

  it.for(
    ["llama", "gemma2", "qwen3_moe", "phi3_longrope"].flatMap(
      (name) => goldenCases(fixtureCases).find((item) => item.name.startsWith(name)) ?? [],
    ),
  )(
    "give the reference's logits and tokens beside OpenCL: $name",
    async ({ directory: checkpoint, inputIds, logits, greedy }, { skip }) => {
      const reason = native()
        .devices()
        .find(({ backend }) => backend === "opencl")?.reason;
      if (reason !== undefined) skip(reason);
      const model = await AutoModel.fromPretrained(checkpoint, {
        cacheDir,
        device: "opencl",
        placement: "cpu",
        hold: false,
      });
      try {
        const few = await model.forward(inputIds.slice(0, 5));
        expect(relativeError(few.logits, logits.subarray(0, few.logits.length))).toBeLessThan(1e-3);
        const tokens = await model.generate(inputIds, { maxNewTokens: greedy.length, ignoreEos: true }).tokens();
        expect(tokens).toEqual(greedy);
      } finally {
        await model.dispose();
      }
    },
  );

  it("are refused on a device that uses the host's memory", async () => {
    const refused = await outcome(plain, { device: "cpu", placement: "cpu" });
    expect(refused.code).toBe("INVALID_ARGUMENT");
  });
});

it("experts in three tiers give the same bits", async () => {
  const shape =
    "--hidden 512 --intermediate 1024 --heads 8 --kv-heads 2 --layers 6 --vocab 1999 --experts 16 --experts-per-token 3";
  await makeCheckpoint(`${mixture}-checkpoint`, `--family qwen3_moe ${shape}`);
  await decompose({ checkpoint: `${mixture}-checkpoint`, store: mixture });
  const all = await held(mixture, "cpu-discrete");
  const { stages } = await checkTiers(mixture, "cpu-discrete", all, { memory: 0.1, vram: 0.3 });
  expect(new Set(stages.map(({ tier }) => tier))).toContain("routed");
  expect(stages.some(({ stage, hostHeldBytes }) => stage.includes("experts") && hostHeldBytes > 0)).toBe(true);
  expect(stages.some(({ stage, deviceHeldBytes }) => stage.includes("experts") && deviceHeldBytes > 0)).toBe(true);
});

it("a prompt of several blocks of tokens goes through the slots in one pass", async () => {
  const device = "cpu-discrete";
  const streamed = await outcome(plain, { device, memory: "320MiB", vram: "112MiB" }, 560);
  expect(streamed.code, streamed.message).toBeUndefined();
  expect(streamed.residency.streamedBytes).toBeGreaterThan(0);
  const all = await outcome(plain, { device, memory: "2GiB", vram: "2GiB" }, 560);
  expect(streamed.hash).toBe(all.hash);
  expect(streamed.tokens).toEqual(all.tokens);
  expect(streamed.stats.passes).toBe(all.stats.passes);
});

it("layers of the KV cache in the host's memory give the same bits", async () => {
  const load = { device: "cpu-discrete", memory: "1GiB", maxSeqLen: 4096, hold: false };
  const all = await outcome(plain, { ...load, vram: "1GiB" }, 300);
  expect(all.code, all.message).toBeUndefined();
  expect(all.stats.kvSpilledBytes).toBe(0);
  const spilled = await outcome(plain, { ...load, vram: `${all.residency.minimumVramBytes / MIB}MiB` }, 300);
  expect(spilled.code, spilled.message).toBeUndefined();
  expect(spilled.stats.kvSpilledBytes).toBeGreaterThan(0);
  expect(spilled.hash).toBe(all.hash);
  expect(spilled.tokens).toEqual(all.tokens);
});

it("a context whose layers are each larger than the device's budget runs within it, with the same bits", async () => {
  const checkpoint = path.join(directory, "long-checkpoint");
  await makeCheckpoint(
    checkpoint,
    "--hidden 256 --intermediate 320 --heads 16 --kv-heads 16 --head-dim 128 --layers 3 --vocab 127",
  );
  const store = path.join(directory, "long");
  await decompose({ checkpoint, store });
  const run = (load: LoadOptions) =>
    outcomeOf({
      path: store,
      load: { device: "cpu-discrete", memory: "1GiB", maxSeqLen: 1536, cacheDir, ...load },
      prompt: scatteredTokens(1500, 127),
      newTokens: 3,
    });
  const all = await run({ vram: "1GiB" });
  expect(all.code, all.message).toBeUndefined();
  expect(all.residency.kvSpilledBytes).toBe(0);
  const layerBytes = all.residency.kvBytes / 3;
  const vram = Math.floor(layerBytes / MIB) * MIB - MIB;
  const parts = await run({ vram });
  expect(parts.code, parts.message).toBeUndefined();
  expect(parts.stats.kvSpilledBytes).toBe(3 * layerBytes);
  expect(parts.hash).toBe(all.hash);
  expect(parts.tokens).toEqual(all.tokens);
  expect(parts.peakBytes).toBeLessThan(2 ** 30 + vram);
}, 60_000);

describe("budgets that cannot work", () => {
  const device = "cpu-discrete";

  it("name the one that is too small, with the least that works", async () => {
    const refused = await outcome(plain, { device, vram: "1MiB" });
    expect(refused.code).toBe("MEMORY_BUDGET_TOO_SMALL");
    const least = /A vram budget of 1.00 MiB .* Give it (\d+)MiB or more/.exec(refused.message ?? "")?.[1];
    const accepted = await outcome(plain, { device, vram: `${least}MiB` });
    expect(accepted.code, accepted.message).toBeUndefined();
  });

  it("are refused where the device has less free, or none of its own", async () => {
    const large = await outcome(plain, { device, vram: "4096GiB" });
    expect(large.code).toBe("VRAM_BUDGET_TOO_LARGE");
    expect(large.message).toMatch(/4.00 TiB exceeds the [\d.]+ GiB that are free on cpu-discrete/);
    const none = await outcome(plain, { device: "cpu", vram: "1GiB" });
    expect(none.code).toBe("INVALID_ARGUMENT");
  });
});
