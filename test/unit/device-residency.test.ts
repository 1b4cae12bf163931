import { describe, expect, it } from "vitest";
import { planResidency } from "../../dist/engine/residency.js";
import type { ResidencyInput, ResidencyPlan } from "../../dist/engine/residency-sizes.js";

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const CHUNK = 4 * MIB;

/** Chunks share a page with their neighbours, as those of matrices whose rows are no whole pages do. */
function stage(bytes: number, kind: { gathered?: boolean; share?: number } = {}) {
  const { gathered = false, share = 1 } = kind;
  const count = Math.ceil(bytes / CHUNK);
  const chunks = Array.from(
    { length: count },
    (_, index) => Math.min(CHUNK, bytes - index * CHUNK) + (index > 0 ? 4096 : 0),
  );
  return { bytes, chunks, gathered, routed: share < 1, share };
}

function input(change: Partial<ResidencyInput> = {}): ResidencyInput {
  const stages = [stage(200 * MIB, { gathered: true })];
  for (let layer = 0; layer < 24; layer++) stages.push(stage(50 * MIB + 12_288), stage(171 * MIB + 8192));
  stages.push(stage(200 * MIB));
  return {
    budgetBytes: 2 * GIB,
    vramBytes: 2 * GIB,
    deviceMemoryBytes: 24 * GIB,
    runtimeBytes: 150 * MIB,
    stages,
    vectorBytes: 2 * MIB,
    largestRowBytes: 28_672,
    kvBytesPerPosition: 98_304,
    kvLayers: 24,
    kvSpill: true,
    activations: { passBytesPerToken: 17_408, hostBytesPerToken: 1024, blockBytesPerToken: 132_592, blockTokens: 512 },
    logitsBytesPerToken: 4 * 32_000,
    contextLimit: 32_768,
    ...change,
  };
}

function moe(change: Partial<ResidencyInput> = {}): ResidencyInput {
  const stages = [stage(100 * MIB, { gathered: true })];
  for (let layer = 0; layer < 12; layer++) {
    stages.push(stage(30 * MIB), stage(MIB));
    for (let expert = 0; expert < 8; expert++) stages.push(stage(40 * MIB, { share: 0.25 }));
  }
  stages.push(stage(100 * MIB));
  const activations = {
    passBytesPerToken: 17_408,
    hostBytesPerToken: 1024,
    blockBytesPerToken: 132_592,
    blockTokens: 0,
  };
  return input({ stages, activations, ...change });
}

const working = (pages: number, tokens: number, logitsRows = 4) => ({ pages, tokens, logitsRows });

/** What a tier takes of each stage, from the chunks alone. */
function bytesIn({ stages }: ResidencyInput, { held }: ResidencyPlan, tier: number): number {
  return stages.reduce(
    (sum, { chunks }, index) =>
      sum + chunks.reduce((bytes, chunk, at) => bytes + (held[index]?.[at] === tier ? chunk : 0), 0),
    0,
  );
}

/** Both budgets are kept, counted from the plan's parts by hand. */
function checkSums(asked: ResidencyInput, plan: ResidencyPlan): void {
  const { activations, logitsBytesPerToken, runtimeBytes, kvLayers, kvBytesPerPosition } = asked;
  const { tokens, logitsRows, pages } = plan.working;
  const logits = logitsRows * logitsBytesPerToken;
  const layer = (pages * 64 * kvBytesPerPosition) / kvLayers;
  const gather = 64 * 8 * 4096;
  const host =
    runtimeBytes +
    gather +
    plan.ringBytes +
    plan.expertRingBytes +
    tokens * activations.hostBytesPerToken +
    logits +
    (kvLayers - plan.kvLayers) * layer +
    bytesIn(asked, plan, 2);
  expect(host).toBeLessThanOrEqual(asked.budgetBytes);
  expect(plan.fixedBytes + plan.heldBytes - plan.deviceHeldBytes).toBeLessThanOrEqual(asked.budgetBytes);
  const rows = activations.blockTokens === 0 ? tokens : Math.min(tokens, activations.blockTokens);
  const registers =
    tokens * (activations.passBytesPerToken - activations.hostBytesPerToken) + rows * activations.blockBytesPerToken;
  // Three parts of 2 MiB, 8 pages of 256 KiB in each layer, or of all pages.
  const ring = plan.kvLayers < kvLayers ? 3 * Math.min(8, pages) * 256 * KIB : 0;
  const device =
    asked.vectorBytes +
    gather +
    plan.slotBytes +
    plan.expertRingBytes +
    registers +
    logits +
    plan.kvLayers * layer +
    ring +
    plan.deviceHeldBytes;
  expect(device).toBeLessThanOrEqual(asked.vramBytes as number);
  expect(plan.deviceFixedBytes + plan.deviceHeldBytes).toBe(device);
}

describe("planResidency for a device with memory of its own", () => {
  it.each([
    ["a plain model", input],
    ["experts", moe],
  ] as const)("keeps both budgets, from the least ones up: %s", (_, make) => {
    const { minimumBytes, minimumVramBytes } = planResidency(make());
    for (let budgetBytes = minimumBytes; budgetBytes < 9 * GIB; budgetBytes = Math.ceil(budgetBytes * 1.9)) {
      for (let vramBytes = minimumVramBytes; vramBytes < 9 * GIB; vramBytes = Math.ceil(vramBytes * 1.7)) {
        for (const [pages, tokens] of [
          [4, 16],
          [32, 700],
          [60, 3000],
        ] as const) {
          const asked = make({ budgetBytes, vramBytes, working: working(pages, tokens), maxSeqLen: 4096 });
          let plan: ResidencyPlan;
          try {
            plan = planResidency(asked);
          } catch (error) {
            expect(error).toMatchObject({ code: "MEMORY_BUDGET_TOO_SMALL" });
            continue;
          }
          checkSums(asked, plan);
        }
        const decode = make({ budgetBytes, vramBytes });
        checkSums(decode, planResidency(decode));
      }
    }
  });

  it("names the budget that is too small, and the least that works", () => {
    const { minimumBytes, minimumVramBytes } = planResidency(input());
    expect(() => planResidency(input({ vramBytes: minimumVramBytes - 1 }))).toThrow(
      expect.objectContaining({ code: "MEMORY_BUDGET_TOO_SMALL", message: expect.stringContaining("A vram budget") }),
    );
    expect(() => planResidency(input({ vramBytes: 1 }))).toThrow(`Give it ${minimumVramBytes / MIB}MiB or more`);
    expect(() => planResidency(input({ budgetBytes: 100 * MIB }))).toThrow(/A memory budget .* Give it \d+MiB or more/);
    expect(minimumVramBytes).toBeLessThan(100 * MIB);
    const least = planResidency(input({ budgetBytes: minimumBytes, vramBytes: minimumVramBytes }));
    expect(least.working.tokens).toBe(16);
  });

  it("fills the device first, then the host, and streams the rest", () => {
    const tape = 24 * (221 * MIB + 20_480) + 200 * MIB;
    const device = planResidency(input({ vramBytes: 8 * GIB }));
    expect(device.streamedBytes).toBe(0);
    expect(device.deviceHeldBytes).toBeGreaterThanOrEqual(tape);
    expect(device.slotBytes).toBe(0);
    const both = planResidency(input({ vramBytes: 2 * GIB, budgetBytes: 9 * GIB }));
    expect(both.streamedBytes).toBe(0);
    expect(2 * GIB - both.deviceFixedBytes - both.deviceHeldBytes).toBeLessThan(CHUNK + 4096);
    expect(both.heldBytes - both.deviceHeldBytes).toBeGreaterThan(3 * GIB);
    const three = planResidency(input());
    expect(2 * GIB - three.deviceFixedBytes - three.deviceHeldBytes).toBeLessThan(CHUNK + 4096);
    expect(2 * GIB - three.fixedBytes - (three.heldBytes - three.deviceHeldBytes)).toBeLessThan(CHUNK + 4096);
    expect(three.streamedBytes).toBeGreaterThan(GIB);
  });

  it("holds nothing where that is asked for", () => {
    const plan = planResidency(input({ hold: false }));
    expect(plan.heldBytes).toBe(0);
    expect(plan.slotBytes).toBeGreaterThan(0);
  });

  it("spreads each tier evenly along the tape", () => {
    for (const gibibytes of [1, 2, 3]) {
      const asked = input({ vramBytes: gibibytes * GIB, budgetBytes: 2 * GIB });
      const plan = planResidency(asked);
      const passed = [0, 0, 0];
      const tape = asked.stages.flatMap((each, index) =>
        each.gathered ? [] : each.chunks.map((bytes, at) => ({ bytes, tier: plan.held[index]?.[at] ?? 0 })),
      );
      const total = tape.reduce((sum, { bytes }) => sum + bytes, 0);
      const shares = [0, 1, 2].map(
        (tier) => tape.reduce((sum, chunk) => sum + (chunk.tier === tier ? chunk.bytes : 0), 0) / total,
      );
      let at = 0;
      for (const { bytes, tier } of tape) {
        at += bytes;
        passed[tier] = (passed[tier] ?? 0) + bytes;
        for (const each of [0, 1, 2]) {
          expect(Math.abs((passed[each] ?? 0) - at * (shares[each] ?? 0))).toBeLessThan(40 * MIB);
        }
      }
    }
  });

  it("carries a prompt in one pass where slots hold what is not held of any stage, else in passes of one block", () => {
    const large = planResidency(input({ working: working(64, 4096) }));
    expect(large.working.tokens).toBe(4096);
    const notHeld = input()
      .stages.slice(1, -1)
      .map(({ chunks }, index) =>
        chunks.reduce((sum, bytes, at) => sum + (large.held[index + 1]?.[at] === 1 ? 0 : bytes), 0),
      );
    expect(large.slotBytes).toBeGreaterThanOrEqual(Math.max(...notHeld) + CHUNK);
    const small = planResidency(input({ vramBytes: 300 * MIB, working: working(16, 1024) }));
    expect(small.working.tokens).toBe(512);
  });

  it("gives weights to what grows, and has them back, moving no more than it must", () => {
    let plan = planResidency(input());
    for (const pages of [8, 40, 70, 30, 8]) {
      const next = planResidency(input({ working: working(pages, 16), held: plan.held }));
      let lost = 0;
      let won = 0;
      next.held.forEach((tiers, index) => {
        tiers.forEach((tier, chunk) => {
          const before = plan.held[index]?.[chunk];
          if (before === 1 && tier !== 1) lost++;
          if (before !== 1 && tier === 1) won++;
        });
      });
      expect(Math.min(lost, won)).toBeLessThanOrEqual(1);
      plan = next;
    }
  });

  it("has layers of the KV cache in the host's memory once they do not fit beside a pass, and no sooner", () => {
    const layers = [64, 128, 192, 320].map((pages) => {
      const asked = input({ vramBytes: GIB, working: working(pages, 16), maxSeqLen: pages * 64 });
      const plan = planResidency(asked);
      checkSums(asked, plan);
      expect(plan.kvSpilledBytes).toBe((24 - plan.kvLayers) * pages * 64 * 4096);
      return plan.kvLayers;
    });
    expect(layers.slice(0, 2)).toEqual([24, 24]);
    expect(layers[2]).toBeLessThan(24);
    expect(layers[3]).toBeLessThan(layers[2] as number);
    expect(layers[3]).toBeGreaterThan(0);
    const { maxSeqLen, pageCount } = planResidency(input({ vramBytes: GIB, contextLimit: 2 ** 20 }));
    const alone = planResidency(input({ vramBytes: GIB, contextLimit: 2 ** 20, kvSpill: false })).maxSeqLen;
    expect(maxSeqLen).toBeGreaterThan(1.8 * alone);
    const full = input({ vramBytes: GIB, contextLimit: 2 ** 20, working: working(pageCount, 16, 16) });
    checkSums(full, planResidency(full));
  });

  it("needs no more of the device for a longer context once its layers come in parts", () => {
    const least = (maxSeqLen: number) => {
      const asked = { maxSeqLen, budgetBytes: 64 * GIB, working: working(maxSeqLen / 64, 16) };
      const { minimumVramBytes } = planResidency(input(asked));
      const plan = planResidency(input({ ...asked, vramBytes: minimumVramBytes }));
      checkSums(input({ ...asked, vramBytes: minimumVramBytes }), plan);
      expect(plan.kvSpilledBytes).toBe(maxSeqLen * 98_304);
      return minimumVramBytes;
    };
    // A layer's keys and values alone are 1 GiB in the end.
    expect([16_384, 65_536, 262_144].map(least)).toEqual([least(4096), least(4096), least(4096)]);
    expect(least(4096)).toBeLessThan(64 * MIB);
  });

  it("holds experts as a whole, in either memory", () => {
    const asked = moe({ vramBytes: 1.5 * GIB, budgetBytes: 1.5 * GIB });
    const { held } = planResidency(asked);
    const tiers = asked.stages.map(({ routed }, index) => (routed ? [...new Set(held[index])] : [0]));
    expect(tiers.every((each) => each.length === 1)).toBe(true);
    expect(new Set(tiers.map(([tier]) => tier))).toEqual(new Set([0, 1, 2]));
  });
});
