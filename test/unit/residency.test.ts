import { describe, expect, it } from "vitest";
import { stagedBytes, stageParts } from "../../dist/engine/held-chunks.js";
import { planResidency } from "../../dist/engine/residency.js";
import type { ResidencyInput, ResidencyPlan } from "../../dist/engine/residency-sizes.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** As native code cuts matrices whose rows are whole pages. */
function chunksOf(bytes: number): number[] {
  const count = Math.ceil(bytes / (4 * MIB));
  return Array.from({ length: count }, (_, index) => Math.min(4 * MIB, bytes - index * 4 * MIB));
}

const onTape = (bytes: number) => ({ bytes, chunks: chunksOf(bytes), gathered: false, routed: false, share: 1 });

/** Mixtral-8x7B in 4 bits: 32 layers with 8 experts of 94 MB, of which a token reads 2. */
function mixtral(change: Partial<ResidencyInput> = {}): ResidencyInput {
  const stages = [{ ...onTape(139_264_000), gathered: true }];
  for (let layer = 0; layer < 32; layer++) {
    stages.push(onTape(22_282_240), onTape(65_536));
    for (let expert = 0; expert < 8; expert++) stages.push({ ...onTape(93_585_408), routed: true, share: 0.25 });
  }
  stages.push(onTape(139_264_000));
  const activations = {
    passBytesPerToken: 17_408,
    hostBytesPerToken: 512,
    blockBytesPerToken: 132_592,
    blockTokens: 0,
  };
  return { ...llama8b(), stages, activations, logitsBytesPerToken: 4 * 32_000, ...change };
}

/** Llama-3-8B in bf16: 32 layers of 84 and 352 MB, 1 GB of embedding and head each. */
function llama8b(change: Partial<ResidencyInput> = {}): ResidencyInput {
  const stages = [{ ...onTape(1_050_673_152), gathered: true }];
  for (let layer = 0; layer < 32; layer++) stages.push(onTape(83_886_080), onTape(352_321_536));
  stages.push(onTape(1_050_673_152));
  return {
    budgetBytes: 4 * GIB,
    runtimeBytes: 150 * MIB,
    stages,
    vectorBytes: 2 * MIB,
    largestRowBytes: 28_672,
    kvBytesPerPosition: 262_144,
    kvLayers: 32,
    activations: { passBytesPerToken: 17_408, hostBytesPerToken: 512, blockBytesPerToken: 132_592, blockTokens: 512 },
    logitsBytesPerToken: 4 * 128_256,
    contextLimit: 131_072,
    ...change,
  };
}

describe("planResidency", () => {
  it("keeps the sum of everything inside the budget, for any budget from the least one up", () => {
    const least = planResidency(llama8b()).minimumBytes;
    for (let budgetBytes = least; budgetBytes < 24 * GIB; budgetBytes = Math.ceil(budgetBytes * 1.13)) {
      const plan = planResidency(llama8b({ budgetBytes }));
      expect(plan.fixedBytes + plan.heldBytes).toBeLessThanOrEqual(budgetBytes);
      expect(plan.ringBytes === 0).toBe(plan.streamedBytes === 0);
    }
  });

  it("every chunk of the tape is held or streamed, whatever the budget", () => {
    const input = llama8b();
    const tapeBytes = input.stages.reduce((bytes, stage) => bytes + (stage.gathered ? 0 : stage.bytes), 0);
    for (let budgetBytes = planResidency(input).minimumBytes; budgetBytes < 24 * GIB; budgetBytes *= 1.07) {
      const plan = planResidency(llama8b({ budgetBytes }));
      const embedding = plan.held[0]?.every(Boolean) ? (input.stages[0]?.bytes ?? 0) : 0;
      expect(plan.heldBytes - embedding + plan.streamedBytes).toBe(tapeBytes);
      for (const [index, flags] of plan.held.entries())
        expect(flags).toHaveLength(input.stages[index]?.chunks.length ?? 0);
    }
  });

  it("refuses less than the least, naming it", () => {
    const least = planResidency(llama8b()).minimumBytes;
    expect(() => planResidency(llama8b({ budgetBytes: least - MIB }))).toThrow(`Give it ${least / MIB}MiB or more`);
    expect(least).toBeLessThan(400 * MIB);
  });

  it("names a least that is the same under any budget, and that works in a process that needs more", () => {
    const least = planResidency(llama8b()).minimumBytes;
    expect(planResidency(llama8b({ budgetBytes: 64 * GIB })).minimumBytes).toBe(least);
    const larger = llama8b({ runtimeBytes: 158 * MIB, runtimeVariationBytes: 24 * MIB });
    expect(planResidency({ ...larger, budgetBytes: least }).minimumBytes).toBeGreaterThan(least);
    expect(planResidency({ ...larger, budgetBytes: least }).fixedBytes).toBeLessThanOrEqual(least);
    expect(() => planResidency({ ...larger, budgetBytes: least - 24 * MIB })).toThrow("cannot work");
  });

  it("uses the budget: what is left is smaller than a chunk", () => {
    for (const budgetBytes of [2 * GIB, 4 * GIB, 7 * GIB, 12 * GIB]) {
      const plan = planResidency(llama8b({ budgetBytes }));
      expect(budgetBytes - plan.fixedBytes - plan.heldBytes).toBeLessThan(4 * MIB);
    }
  });

  it.each([1, 2, 4, 9, 13])("spreads what is held evenly along the tape, in %d GiB", (gibibytes) => {
    const input = llama8b({ budgetBytes: gibibytes * GIB });
    const plan = planResidency(input);
    expect(plan.heldBytes).toBeGreaterThan(0);
    const share = plan.heldBytes / (plan.heldBytes + plan.streamedBytes);
    const furthest = { behind: 0, ahead: 0 };
    const runs: number[] = [];
    let held = 0;
    let passed = 0;
    let last = 0;
    input.stages.forEach(({ gathered, chunks }, index) => {
      if (gathered) return;
      chunks.forEach((bytes, chunk) => {
        const flag = plan.held[index]?.[chunk] ?? 0;
        passed += bytes;
        held += flag * bytes;
        furthest.behind = Math.max(furthest.behind, share * passed - held);
        furthest.ahead = Math.max(furthest.ahead, held - share * passed);
        if (flag === last) runs.push((runs.pop() ?? 0) + bytes);
        else runs.push(bytes);
        last = flag;
      });
    });
    // At every chunk; the rest that is filled in the end is a chunk or two.
    expect(furthest.behind).toBeLessThan(20 * MIB);
    expect(furthest.ahead).toBeLessThan(20 * MIB);
    // Held chunks have neighbours.
    expect(passed / runs.length).toBeGreaterThan(14 * MIB);
  });

  it("holds everything when it fits, the gathered embedding last", () => {
    const all = planResidency(llama8b({ budgetBytes: 40 * GIB }));
    expect(all.held.every((flags) => flags.every(Boolean))).toBe(true);
    const tight = planResidency(llama8b({ budgetBytes: 14.9 * GIB, maxSeqLen: 512 }));
    expect(tight.streamedBytes).toBe(0);
    expect(tight.held[0]?.some(Boolean)).toBe(false);
  });

  it("gives the context that is asked for, or says what it would take", () => {
    expect(planResidency(llama8b({ maxSeqLen: 8192 })).maxSeqLen).toBe(8192);
    expect(() => planResidency(llama8b({ maxSeqLen: 131_072 }))).toThrow(/a context of 131072 tokens.*lower maxSeqLen/);
    expect(planResidency(llama8b({ contextLimit: 100 })).maxSeqLen).toBe(100);
  });

  it("offers as long a context as the budget can hold without weights, up to what the model is made for", () => {
    const lengths = [1, 2, 4, 8, 16, 40].map(
      (gibibytes) => planResidency(llama8b({ budgetBytes: gibibytes * GIB })).maxSeqLen,
    );
    expect(lengths).toEqual([...lengths].sort((a, b) => a - b));
    // 256 KiB a token: all but the fixed needs.
    expect(lengths[1]).toBeGreaterThan(6000);
    expect(lengths.at(-1)).toBe(131_072);
    for (const budgetBytes of [1 * GIB, 2 * GIB, 40 * GIB]) {
      const { pageCount } = planResidency(llama8b({ budgetBytes }));
      const full = planResidency(llama8b({ budgetBytes, working: { pages: pageCount, tokens: 16, logitsRows: 16 } }));
      expect(full.fixedBytes + full.heldBytes).toBeLessThanOrEqual(budgetBytes);
    }
  });

  it("offers what fits with all but two layers of the cache in a file, where that may be", () => {
    const input = llama8b({ budgetBytes: 1 * GIB, kvSpill: true });
    const { maxSeqLen, pageCount } = planResidency(input);
    const inMemory = planResidency({ ...input, kvSpill: false }).maxSeqLen;
    expect(maxSeqLen / inMemory).toBeGreaterThan(15);
    expect(maxSeqLen / inMemory).toBeLessThan(17);
    const full = planResidency({ ...input, working: { pages: pageCount, tokens: 16, logitsRows: 16 } });
    expect(full.fixedBytes + full.heldBytes).toBeLessThanOrEqual(1 * GIB);
    expect(full.kvLayers).toBe(0);
    expect(planResidency(llama8b({ kvSpill: true })).maxSeqLen).toBe(131_072);
  });

  it("has a ring for all that a compressed stage has there: what is read and what it becomes", () => {
    const input = llama8b({
      working: { pages: 64, tokens: 2048, logitsRows: 4 },
      compressed: true,
    });
    const halves = input.stages.map(({ chunks }) => chunks.map((bytes) => bytes / 2));
    const stages = input.stages.map((stage, index) => ({
      ...stage,
      reads: halves[index],
      staged: stage.chunks.map((bytes) => bytes + bytes / 2),
    }));
    for (const hold of [false, true]) {
      const { held, ringBytes, working } = planResidency({ ...input, stages, hold });
      expect(working.tokens).toBe(2048);
      const needed = stages
        .slice(0, -1)
        .map((stage, index) => (stage.gathered ? 0 : stagedBytes(stage, held[index] as Uint8Array)));
      expect(ringBytes).toBeGreaterThan(Math.max(...needed));
      expect(Math.max(...needed)).toBeGreaterThan(352_321_536 / 2);
    }
  });

  it("a 70B model in bf16, of which a layer has 1.7 GB, works in less than half a GiB", () => {
    const stages = [{ ...onTape(2_101_346_304), gathered: true }];
    for (let layer = 0; layer < 80; layer++) stages.push(onTape(301_989_888), onTape(1_409_286_144));
    stages.push(onTape(2_101_346_304));
    const activations = {
      passBytesPerToken: 33_792,
      hostBytesPerToken: 512,
      blockBytesPerToken: 263_208,
      blockTokens: 512,
    };
    const shape = { stages, largestRowBytes: 57_344, kvBytesPerPosition: 655_360, activations };
    const plan = planResidency(llama8b({ ...shape, vectorBytes: 5 * MIB, budgetBytes: 512 * MIB }));
    expect(plan.minimumBytes).toBeLessThan(512 * MIB);
    expect(plan.maxSeqLen).toBeGreaterThanOrEqual(256);
  });

  describe("working memory", () => {
    const working = (pages: number, tokens: number, logitsRows = 4) => ({ pages, tokens, logitsRows });

    it("takes what it needs from held weights and leaves the rest as it is", () => {
      const plans = [8, 16, 64, 192].map((pages) => planResidency(llama8b({ working: working(pages, 16) })));
      const [least, ...others] = plans as [ResidencyPlan, ...ResidencyPlan[]];
      for (const plan of others) {
        const more = plan.kvBytes - least.kvBytes;
        expect(more).toBe((plan.working.pages - 8) * 64 * 262_144);
        expect(Math.abs(least.heldBytes - plan.heldBytes - more)).toBeLessThan(8 * MIB);
        expect(plan).toMatchObject({
          ringBytes: least.ringBytes,
          maxSeqLen: least.maxSeqLen,
          chunkBytes: least.chunkBytes,
        });
      }
    });

    /** What must be in the ring at once while blocks of tokens work with a stage. */
    const largestStreamed = (input: ResidencyInput, { held }: ResidencyPlan) =>
      Math.max(
        ...input.stages
          .slice(0, -1)
          .map((stage, index) => (stage.gathered ? 0 : stageParts(stage, held[index] as Uint8Array).streamedBytes)),
      );

    it("grows and shrinks without chunks changing hands for nothing, and what is held stays even", () => {
      const bytesWhere = (plan: ResidencyPlan, test: (stage: number, chunk: number) => boolean) =>
        input.stages.reduce((sum, stage, index) => {
          const chosen = stage.chunks.filter((_, at) => plan.held[index]?.[at] === 1 && test(index, at));
          return sum + chosen.reduce((bytes, chunk) => bytes + chunk, 0);
        }, 0);
      const input = llama8b({ budgetBytes: 6 * GIB });
      let plan = planResidency(input);
      for (const pages of [8, 24, 60, 30, 9, 64, 8]) {
        const next = planResidency({ ...input, working: working(pages, 16), held: plan.held });
        const lost = bytesWhere(plan, (stage, chunk) => next.held[stage]?.[chunk] === 0);
        const won = bytesWhere(next, (stage, chunk) => plan.held[stage]?.[chunk] === 0);
        expect(Math.min(lost, won)).toBe(0);
        expect(Math.abs(won - lost - (plan.fixedBytes - next.fixedBytes))).toBeLessThan(8 * MIB);
        plan = next;
      }
      const share = plan.heldBytes / (plan.heldBytes + plan.streamedBytes);
      for (let end = 4; end < 66; end += 4) {
        const passed = input.stages.slice(1, end).reduce((bytes, stage) => bytes + stage.bytes, 0);
        const held = bytesWhere(plan, (stage) => stage < end);
        expect(Math.abs(held - share * passed)).toBeLessThan(64 * MIB);
      }
    });

    it("carries a prompt in one pass where activations and the streamed part of a stage fit", () => {
      for (const gibibytes of [2, 4, 8, 12]) {
        for (const hold of [true, false]) {
          const input = llama8b({ budgetBytes: gibibytes * GIB, hold, working: working(64, 4096) });
          const plan = planResidency(input);
          expect(plan.working.tokens).toBe(4096);
          expect(plan.activationBytes).toBe(4096 * 17_408 + 512 * 132_592);
          expect(plan.ringBytes).toBeGreaterThan(largestStreamed(input, plan) + 4 * MIB);
          expect(plan.fixedBytes + plan.heldBytes).toBeLessThanOrEqual(gibibytes * GIB);
          if (hold) expect(gibibytes * GIB - plan.fixedBytes - plan.heldBytes).toBeLessThan(4 * MIB);
        }
      }
    });

    it("cuts a prompt that does not fit into passes as long as possible", () => {
      const parts = planResidency(llama8b({ budgetBytes: 2 * GIB, working: working(16, 120_000) }));
      expect(parts.working.tokens).toBeGreaterThan(20_000);
      expect(parts.working.tokens).toBeLessThan(120_000);
      expect(2 * GIB - parts.fixedBytes - parts.heldBytes).toBeLessThan(4 * MIB);
    });

    it("cuts a prompt into blocks where a stage does not fit, and leaves the ring as it was", () => {
      const decode = planResidency(llama8b({ budgetBytes: 600 * MIB }));
      const prompt = planResidency(llama8b({ budgetBytes: 600 * MIB, working: working(16, 1024) }));
      expect(prompt.working.tokens).toBe(512);
      expect(prompt.ringBytes).toBe(decode.ringBytes);
    });

    it("puts layers of the KV cache in a file once it does not fit, and no sooner", () => {
      const spilled = [64, 96, 128, 256, 1000].map((pages) => {
        const input = llama8b({ budgetBytes: 2 * GIB, kvSpill: true, working: working(pages, pages * 64) });
        const plan = planResidency(input);
        expect(plan.fixedBytes + plan.heldBytes).toBeLessThanOrEqual(2 * GIB);
        const layerBytes = pages * 64 * 8192;
        expect(plan.kvSpilledBytes).toBe((32 - plan.kvLayers) * layerBytes);
        // A layer at work and one on its way.
        expect(plan.kvBytes).toBe((plan.kvLayers < 32 ? plan.kvLayers + 2 : 32) * layerBytes);
        return plan.kvSpilledBytes > 0;
      });
      expect(spilled).toEqual([false, false, true, true, true]);
      expect(planResidency(llama8b({ budgetBytes: 2 * GIB, kvSpill: true, maxSeqLen: 60_000 })).maxSeqLen).toBe(60_000);
    });

    it("has a larger ring only for prompts of several blocks", () => {
      const rings = [16, 512, 513].map(
        (tokens) => planResidency(llama8b({ budgetBytes: 4 * GIB, working: working(64, tokens) })).ringBytes,
      );
      expect(rings[1]).toBe(rings[0]);
      expect(rings[2]).toBeGreaterThan(rings[1] as number);
    });

    it("cuts a prompt rather than stream what would fit beside shorter passes", () => {
      const budgetBytes = 15.6 * GIB;
      const plan = planResidency(llama8b({ budgetBytes, working: working(64, 32_768) }));
      expect(plan.streamedBytes).toBe(0);
      expect(plan.working.tokens).toBeGreaterThanOrEqual(512);
      expect(plan.working.tokens).toBeLessThan(32_768);
    });

    it("is refused when it does not fit without weights, naming what would", () => {
      const input = llama8b({ budgetBytes: 2 * GIB, working: working(1000, 16) });
      const message =
        /15\.\d GiB with 64000 tokens in the KV cache and logits of 4\. Give it (\d+)MiB or more, or lower maxSeqLen/;
      expect(() => planResidency(input)).toThrow(message);
      expect(() => planResidency(llama8b({ budgetBytes: 2 * GIB, working: working(8, 16, 8192) }))).toThrow(
        /logits of 8192/,
      );
    });
  });
});

describe("experts", () => {
  const sum = (input: ResidencyInput, held: Uint8Array[], routed: boolean) =>
    input.stages.reduce((bytes, stage, i) => {
      if (stage.routed !== routed) return bytes;
      return bytes + stageParts(stage, held[i] as Uint8Array).heldBytes;
    }, 0);

  it("are held after everything that each pass reads, and stay inside the budget", () => {
    for (const budgetBytes of [0.7 * GIB, 1 * GIB, 3 * GIB, 12 * GIB, 40 * GIB]) {
      const input = mixtral({ budgetBytes });
      const plan = planResidency(input);
      expect(plan.fixedBytes + plan.heldBytes).toBeLessThanOrEqual(budgetBytes);
      const tape = input.stages.filter((stage) => !stage.routed && !stage.gathered);
      const tapeBytes = tape.reduce((bytes, stage) => bytes + stage.bytes, 0);
      const experts = sum(input, plan.held, true);
      if (experts > 0) expect(sum(input, plan.held, false)).toBeGreaterThanOrEqual(tapeBytes);
      // Where all of the tape is held there is no ring for it; experts have theirs until they are all held.
      expect(plan.ringBytes > 0).toBe(sum(input, plan.held, false) < tapeBytes);
      expect(plan.expertRingBytes > 0).toBe(experts < 256 * 93_585_408);
      // As a whole or not at all.
      for (const [index, { routed }] of input.stages.entries()) {
        if (routed) expect(new Set(plan.held[index]).size).toBe(1);
      }
    }
  });

  it("count as what a token reads of them", () => {
    const plan = planResidency(mixtral({ budgetBytes: 4 * GIB, hold: false }));
    expect(plan.heldBytes).toBe(0);
    expect(plan.streamedBytes).toBe(32 * (22_282_240 + 65_536 + 2 * 93_585_408) + 139_264_000);
  });

  it("spread over the layers", () => {
    const input = mixtral({ budgetBytes: 12 * GIB });
    const { held } = planResidency(input);
    const layers = Array.from({ length: 32 }, (_, layer) =>
      held.slice(3 + 10 * layer, 11 + 10 * layer).filter(([first]) => first === 1),
    );
    const counts = layers.map((experts) => experts.length);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
  });
});
