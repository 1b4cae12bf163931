import { describe, expect, it } from "vitest";
import { KvCache, type Sequence } from "../../dist/engine/kv-cache.js";
import { planResidency } from "../../dist/engine/residency.js";
import type { ResidencyInput } from "../../dist/engine/residency-sizes.js";
import { type MemoryChange, reservedSizes, WorkingMemoryPlanner } from "../../dist/engine/working-memory.js";

const MIB = 2 ** 20;
const chunks = (bytes: number) => Array.from({ length: bytes / (4 * MIB) }, () => 4 * MIB);
const stage = (bytes: number, gathered = false) => ({
  bytes,
  chunks: chunks(bytes),
  gathered,
  routed: false,
  share: 1,
});

/** 1 GiB of weights; 128 KiB of keys and values and 64 KiB of registers a token. */
const input: ResidencyInput = {
  budgetBytes: 700 * MIB,
  runtimeBytes: 100 * MIB,
  stages: [stage(64 * MIB, true), ...Array.from({ length: 15 }, () => stage(60 * MIB)), stage(60 * MIB)],
  vectorBytes: MIB,
  largestRowBytes: 8192,
  kvBytesPerPosition: 131_072,
  kvLayers: 16,
  activations: { blockTokens: 0, passBytesPerToken: 65_536, hostBytesPerToken: 512, blockBytesPerToken: 0 },
  logitsBytesPerToken: 65_536,
  contextLimit: 100_000,
};

function setUp(change: Partial<ResidencyInput> = {}) {
  const all = { ...input, ...change };
  const plan = planResidency(all);
  const cache = new KvCache(reservedSizes(all, plan).pages, 64, true);
  const planner = new WorkingMemoryPlanner(all, plan, cache);
  cache.setCommitted(new Uint8Array(reservedSizes(all, plan).pages).fill(1, 0, plan.working.pages));
  const take = (found: MemoryChange | undefined) => {
    if (found) planner.adopt(found);
    return found;
  };
  const grow = (sequence: Sequence, tokens: number) => {
    const found = take(planner.beforePass(sequence, tokens));
    sequence.tokens.push(...Array.from({ length: Math.min(tokens, planner.plan.working.tokens) }, (_, index) => index));
    return found;
  };
  return { cache, planner, take, grow };
}

describe("WorkingMemoryPlanner", () => {
  it("changes nothing for a short sequence", async () => {
    const { cache, grow } = setUp();
    const sequence = await cache.acquire([1], 500);
    expect(grow(sequence, 16)).toBeUndefined();
    for (let count = 0; count < 400; count++) expect(grow(sequence, 1)).toBeUndefined();
  });

  it("takes memory from weights before a pass that needs it, and some ahead", async () => {
    const { cache, planner, grow } = setUp();
    const sequence = await cache.acquire([1], 3000);
    const before = planner.plan;
    const change = grow(sequence, 1000);
    expect(change?.plan.working.tokens).toBe(1000);
    expect(change?.plan.heldBytes).toBeLessThan(before.heldBytes - 100 * MIB);
    expect(cache.covers(sequence, 1500)).toBe(true);
    expect(cache.covers(sequence, 1600)).toBe(false);
    // Registers of the prompt hold weights again while the answer comes, once.
    const decoding = grow(sequence, 1);
    expect(decoding?.plan.heldBytes).toBeGreaterThan((change?.plan.heldBytes ?? 0) + 50 * MIB);
    let changes = 0;
    for (let count = 0; count < 1900; count++) if (grow(sequence, 1)) changes++;
    expect(changes).toBeGreaterThan(1);
    expect(changes).toBeLessThan(5);
    const { fixedBytes, heldBytes } = planner.plan;
    expect(fixedBytes + heldBytes).toBeLessThanOrEqual(700 * MIB);
  });

  it("cuts a prompt that does not fit in one pass, without planning anew for each part", async () => {
    const { cache, planner, grow } = setUp({ budgetBytes: 400 * MIB });
    const sequence = await cache.acquire([1], 1500);
    let left = 1500;
    let changes = 0;
    for (; left > 0; left -= Math.min(left, planner.plan.working.tokens)) if (grow(sequence, left)) changes++;
    expect(sequence.tokens).toHaveLength(1500);
    expect(changes).toBe(1);
  });

  it("forgets finished sequences before it fails", async () => {
    const { cache, planner, grow } = setUp({ budgetBytes: 400 * MIB });
    const first = await cache.acquire([1], 1000);
    grow(first, 1000);
    cache.release(first, true);
    expect(planner.beforeLogits(2500)?.plan.working.logitsRows).toBe(2500);
    expect(() => planner.beforeLogits(100_000)).toThrow(/logits of 100000/);
  });

  it("keeps a budget from the next pass on, and refuses one in which running sequences do not fit", async () => {
    const { cache, planner, take } = setUp();
    const lower = take(planner.forBudget(300 * MIB));
    expect(lower?.plan.heldBytes).toBeLessThan(200 * MIB);
    expect(planner.budgetBytes).toBe(300 * MIB);
    const sequence = await cache.acquire([1], 800);
    expect(() => planner.forBudget(200 * MIB)).toThrow(/832 tokens in the KV cache/);
    expect(planner.budgetBytes).toBe(300 * MIB);
    cache.release(sequence, false);
    expect(planner.forBudget(200 * MIB).plan.maxSeqLen).toBeLessThan(832);
  });
});
