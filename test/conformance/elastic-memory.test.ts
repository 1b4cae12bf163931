/** Memory moves between weights and passes, and from one budget to another: same bits, inside the budget. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeStore } from "../helpers/random-models.js";

const run = promisify(execFile);
const MIB = 2 ** 20;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-elastic-"));
const store = path.join(directory, "store");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const child = fileURLToPath(new URL("../helpers/elastic-child.mjs", import.meta.url));

interface Outcome {
  tokens?: number[];
  hash?: string;
  code?: string;
  message?: string;
  heldBytes: number;
  kvBytes: number;
  activationBytes: number;
  passes: number;
  memoryBudgetBytes: number;
  residentBytes: number;
}

interface Result {
  outcomes: Outcome[];
  minimumBytes: number;
  maxSeqLen: number;
  weightBytes: number;
  peakBytes: number;
}

async function outcomesOf(load: object, steps: object[]): Promise<Result> {
  const request = JSON.stringify({ path: store, load, steps });
  const { stdout } = await run(process.execPath, [child, request]);
  return JSON.parse(stdout) as Result;
}

const short = { promptTokens: 20, newTokens: 4 };
const long = { promptTokens: 700, newTokens: 2 };
let held: Result;
let least: number;

beforeAll(async () => {
  // 16 layers of 6.3 MB in bf16; 64 KiB of keys and values a token.
  const shape = "--hidden 512 --intermediate 1376 --heads 8 --kv-heads 8 --layers 16 --vocab 1999";
  await makeStore(store, shape);
  held = await outcomesOf({ memory: "3GiB" }, [short, long, { forward: 40 }]);
  least = held.minimumBytes;
});

describe("passes and weights", () => {
  it("a long sequence takes memory from held weights, which have it back when it has ended", async () => {
    const memory = least + 80 * MIB;
    const { outcomes, peakBytes } = await outcomesOf({ memory }, [short, long, short, { forward: 40 }, short]);
    const [first, grown, after, forward, last] = outcomes as [Outcome, Outcome, Outcome, Outcome, Outcome];
    expect([first.tokens, grown.tokens, after.tokens]).toEqual([0, 1, 0].map((index) => held.outcomes[index]?.tokens));
    expect(forward.hash).toBe(held.outcomes[2]?.hash);
    expect(last.tokens).toEqual(first.tokens);

    expect(grown.passes).toBe(2);
    expect(grown.kvBytes).toBeGreaterThanOrEqual(701 * 65_536);
    expect(first.heldBytes - grown.heldBytes).toBeGreaterThan(32 * MIB);
    for (const { heldBytes, kvBytes, activationBytes } of outcomes) {
      expect(heldBytes + kvBytes + activationBytes).toBeLessThan(memory);
    }
    expect(peakBytes).toBeLessThan(memory);
  });

  it("a context as long as the budget can hold is offered, and works", async () => {
    const memory = least;
    const { maxSeqLen } = await outcomesOf({ memory }, []);
    expect(maxSeqLen).toBeGreaterThan(512);
    const full = { promptTokens: maxSeqLen - 2, newTokens: 2 };
    const { outcomes, peakBytes } = await outcomesOf({ memory }, [full, short]);
    expect(outcomes.map(({ code }) => code)).toEqual([undefined, undefined]);
    expect(outcomes[1]?.tokens).toEqual(held.outcomes[0]?.tokens);
    expect(peakBytes).toBeLessThan(memory);
  });
});

describe("setMemory", () => {
  it("gives back what a lower budget does not allow before it returns, and holds more under a higher one", async () => {
    const high = least + 80 * MIB;
    const low = least;
    const steps = [short, { memory: low }, short, { memory: `${high}` }, short, short];
    const { outcomes } = await outcomesOf({ memory: high }, steps);
    const [before, lowered, streamed, , , again] = outcomes as [Outcome, Outcome, Outcome, Outcome, Outcome, Outcome];
    for (const { tokens = held.outcomes[0]?.tokens } of outcomes) expect(tokens).toEqual(held.outcomes[0]?.tokens);
    expect(before.residentBytes).toBeGreaterThan(low);
    expect(lowered.residentBytes).toBeLessThan(low);
    expect(streamed.residentBytes).toBeLessThan(low);
    expect(streamed.memoryBudgetBytes).toBe(low);
    expect(again.heldBytes).toBe(before.heldBytes);
  });

  it("refuses what cannot work, naming the least; the model goes on as before", async () => {
    const memory = least + 64 * MIB;
    const { outcomes } = await outcomesOf({ memory }, [short, { memory: 20 * MIB }, { memory: "much" }, short]);
    const [before, refused, invalid, after] = outcomes as [Outcome, Outcome, Outcome, Outcome];
    expect(refused.code).toBe("MEMORY_BUDGET_TOO_SMALL");
    expect(refused.message).toMatch(/Give it \d+MiB or more/);
    expect(invalid.code).toBe("INVALID_ARGUMENT");
    expect(after).toMatchObject({ tokens: before.tokens, heldBytes: before.heldBytes, memoryBudgetBytes: memory });
  });
});
