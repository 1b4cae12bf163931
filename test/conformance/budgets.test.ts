/** Any budget gives the same bits, and is kept. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decompose, type LoadOptions } from "../../dist/index.js";
import { makeCheckpoint, outcomeOf, scatteredTokens } from "../helpers/random-models.js";

const MIB = 2 ** 20;
const directory = mkdtempSync(path.join(tmpdir(), "layerstream-budgets-"));
const checkpoint = path.join(directory, "checkpoint");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const prompt = scatteredTokens(20, 1999);
const outcome = (store: string, load: LoadOptions) =>
  outcomeOf({ path: store, load: { maxSeqLen: 256, ...load }, prompt, newTokens: 3 });

beforeAll(async () => {
  // 14 layers of 12.6 M weights: a layer is 25 MB in bf16, twice the smallest ring; all of them in 4 bits are more than
  // the least budget leaves.
  const shape = "--hidden 1024 --intermediate 2752 --heads 16 --kv-heads 4 --layers 14 --vocab 1999 --dtype bf16";
  await makeCheckpoint(checkpoint, shape);
});

describe.each(["none", "lossless", "8bit", "4bit"] as const)("compression %s", (compression) => {
  const store = path.join(directory, compression);

  it("streamed, held and everything between agree bit for bit, inside the budget", async () => {
    await decompose({ checkpoint, store, compression });
    const held = await outcome(store, { memory: "3GiB" });
    expect(held.code).toBeUndefined();
    expect(held.residency.streamedBytes).toBe(0);
    const least = held.residency.minimumBytes;
    const weights = held.stats.weightBytes;

    const streamedBytes = [];
    for (const share of [0, 0.3, 0.7]) {
      const memory = Math.ceil(least + 16 * MIB + share * weights);
      const other = await outcome(store, { memory });
      expect(other.code, other.message).toBeUndefined();
      expect(other.hash).toBe(held.hash);
      expect(other.tokens).toEqual(held.tokens);
      expect(other.peakBytes).toBeLessThan(memory);
      const passes = other.stats.passes;
      expect(other.stats.bytesStreamed).toBeGreaterThanOrEqual(passes * other.residency.streamedBytes);
      streamedBytes.push(other.residency.streamedBytes);
    }
    // More memory, fewer bytes from disk.
    expect(streamedBytes).toEqual([...streamedBytes].sort((a, b) => b - a));
    expect(streamedBytes[0]).toBeGreaterThan(streamedBytes[2] as number);

    const discrete = await outcome(store, { memory: least + 128 * MIB, device: "cpu-discrete" });
    expect(discrete.code, discrete.message).toBeUndefined();
    expect(discrete.hash).toBe(held.hash);
    const single = await outcome(store, { memory: least + 16 * MIB, threads: 1 });
    expect(single.hash).toBe(held.hash);
  });
});

describe("experts", () => {
  const store = path.join(directory, "experts");

  it("streamed, held and everything between agree bit for bit; only chosen experts are read", async () => {
    const source = path.join(directory, "moe");
    const shape =
      "--family qwen3_moe --hidden 512 --intermediate 512 --heads 8 --kv-heads 2 --layers 6 --vocab 1999 --experts 24 --experts-per-token 3";
    await makeCheckpoint(source, shape);
    await decompose({ checkpoint: source, store });
    const held = await outcome(store, { memory: "3GiB" });
    expect(held.code).toBeUndefined();
    expect(held.residency.streamedBytes).toBe(0);
    const least = held.residency.minimumBytes;

    for (const load of [{ memory: least }, { memory: least + 120 * MIB }, { memory: least, threads: 1 }]) {
      const other = await outcome(store, load);
      expect(other.code, other.message).toBeUndefined();
      expect(other.hash).toBe(held.hash);
      expect(other.tokens).toEqual(held.tokens);
      expect(other.peakBytes).toBeLessThan(load.memory);
    }

    // A token of decoding reads 3 of the 24 experts of a layer, a prompt of 20 at most all of them.
    const streamed = await outcome(store, { memory: "1GiB", hold: false });
    expect(streamed.hash).toBe(held.hash);
    const { passes, bytesStreamed } = streamed.stats;
    const tapeBytes = streamed.residency.stages
      .filter(({ tier }) => tier === "streamed")
      .reduce((sum, entry) => sum + entry.streamedBytes, 0);
    const expert = streamed.residency.stages.find(({ stage }) => stage === "layers.0.experts.0");
    const expertBytes = expert?.streamedBytes ?? 0;
    const prompts = passes - 2;
    const most = (passes + 1) * tapeBytes + 6 * expertBytes * (24 * prompts + 3 * 2);
    expect(bytesStreamed).toBeLessThanOrEqual(most + 64 * MIB);
    expect(streamed.residency.streamedBytes).toBe(tapeBytes + 6 * 3 * expertBytes);
  });
});

it("a budget that cannot work is refused with the least that would, which does", async () => {
  const store = path.join(directory, "none");
  const refused = await outcome(store, { memory: "20MiB" });
  expect(refused.code).toBe("MEMORY_BUDGET_TOO_SMALL");
  const least = /Give it (\d+)MiB/.exec(refused.message ?? "")?.[1];
  const accepted = await outcome(store, { memory: `${least}MiB` });
  expect(accepted.code, accepted.message).toBeUndefined();
  expect(accepted.peakBytes).toBeLessThan(Number(least) * MIB);
});
