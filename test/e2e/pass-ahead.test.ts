/** Greedy generation from held weights enqueues the next token's pass before the token is known: nobody must notice. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AutoModel, type GenerateOptions, type Model } from "../../dist/index.js";
import { fixtureCases, goldenCases } from "../helpers/golden.js";

const LENGTH = 150;
const cacheDir = mkdtempSync(path.join(tmpdir(), "layerstream-ahead-"));
const golden = goldenCases(fixtureCases).find(({ name }) => name === "llama");
if (!golden) throw new Error("test/fixtures/families/llama is missing");
const { directory, inputIds } = golden;
let model: Model;
/** Of the same weights, streamed: no pass of its is enqueued ahead. */
let expected: number[];

const generate = (options: GenerateOptions = {}, from: Model = model) =>
  from.generate(inputIds, { maxNewTokens: LENGTH, ignoreEos: true, ...options });

beforeAll(async () => {
  const streamed = await AutoModel.fromPretrained(directory, { cacheDir, hold: false });
  expected = await generate({}, streamed).tokens();
  await streamed.dispose();
  model = await AutoModel.fromPretrained(directory, { cacheDir });
});
afterAll(async () => {
  await model.dispose();
  rmSync(cacheDir, { recursive: true, force: true });
});

describe("held greedy generation", () => {
  it("gives the tokens of one pass after the other, in as many passes", async () => {
    const before = model.stats();
    expect(await generate().tokens()).toEqual(expected);
    const after = model.stats();
    expect(after.passes - before.passes).toBe(LENGTH);
    expect(after.generatedTokens - before.generatedTokens).toBe(LENGTH);
    expect(after.decodeSeconds).toBeGreaterThan(before.decodeSeconds);
    expect(after.computeSeconds).toBeGreaterThan(before.computeSeconds);
  });

  it("gives them to a program that takes its time as well", async () => {
    const tokens: number[] = [];
    for await (const { token } of generate({ maxNewTokens: 12 })) {
      tokens.push(token);
      if (tokens.length % 3 === 0) await wait(2);
    }
    expect(tokens).toEqual(expected.slice(0, 12));
  });

  it("runs no pass of a token that ends the sequence", async () => {
    const checkpoint = path.join(cacheDir, "ending");
    cpSync(directory, checkpoint, { recursive: true });
    const end = expected[20] as number;
    writeFileSync(path.join(checkpoint, "generation_config.json"), JSON.stringify({ eos_token_id: end }));
    const ending = await AutoModel.fromPretrained(checkpoint, { cacheDir });
    const generation = generate({ ignoreEos: false }, ending);
    expect(await generation.tokens()).toEqual(expected.slice(0, expected.indexOf(end) + 1));
    expect(generation.finishReason).toBe("eos");
    expect(await generate({}, ending).tokens()).toEqual(expected);
    expect(ending.stats().passes).toBe(expected.indexOf(end) + 1 + LENGTH);
    await ending.dispose();
  });

  it("can be broken off anywhere, for the price of one pass", async () => {
    for (const count of [1, 2, 3, 70]) {
      const { passes } = model.stats();
      let taken = 0;
      for await (const { token } of generate()) {
        expect(token).toBe(expected[taken]);
        taken++;
        if (taken === count) break;
      }
      expect(await generate({ maxNewTokens: 75 }).tokens()).toEqual(expected.slice(0, 75));
      expect(model.stats().passes - passes).toBe(count + 1 + 75);
    }
  });

  it("can be aborted anywhere", async () => {
    const schedule = [queueMicrotask, setImmediate, (work: () => void) => setTimeout(work, 1)];
    for (let round = 0; round < 12; round++) {
      const controller = new AbortController();
      const tokens: number[] = [];
      const run = async () => {
        for await (const { token } of generate({ signal: controller.signal })) {
          tokens.push(token);
          if (tokens.length === 3 + round) schedule[round % schedule.length]?.(() => controller.abort());
          if (round % 4 === 0) await wait(1);
        }
      };
      await expect(run()).rejects.toThrow();
      expect(tokens).toEqual(expected.slice(0, tokens.length));
      expect(await generate({ maxNewTokens: 8 }).tokens()).toEqual(expected.slice(0, 8));
    }
  });

  it("lets other passes and changes of memory in between", async () => {
    const { memoryBudgetBytes, minimumBytes } = model.residency();
    const { logits } = await model.forward(inputIds);
    const others: Promise<unknown>[] = [];
    const tokens: number[] = [];
    for await (const { token } of generate()) {
      tokens.push(token);
      if (tokens.length === 10) others.push(generate({ maxNewTokens: 30 }).tokens());
      if (tokens.length === 20) others.push(model.forward(inputIds).then((result) => result.logits));
      if (tokens.length === 60) others.push(model.setMemory(minimumBytes));
      if (tokens.length === 90) others.push(model.setMemory(memoryBudgetBytes));
    }
    expect(tokens).toEqual(expected);
    expect(await Promise.all(others)).toEqual([expected.slice(0, 30), logits, undefined, undefined]);
  });

  it("fails with the model's end", async () => {
    const doomed = await AutoModel.fromPretrained(directory, { cacheDir });
    const iterator = generate({}, doomed)[Symbol.asyncIterator]();
    for (let count = 0; count < 4; count++) await iterator.next();
    await doomed.dispose();
    expect(doomed.stats().passes).toBeGreaterThanOrEqual(4);
    // The pass that was enqueued ahead may have ended before.
    await expect(Promise.all([iterator.next(), iterator.next(), iterator.next()])).rejects.toMatchObject({
      code: "MODEL_DISPOSED",
    });
  });
});
