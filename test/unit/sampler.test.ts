import { describe, expect, it } from "vitest";
import type { SamplingOptions } from "../../dist/engine/contract.js";
import { createRandom, randomSeed } from "../../dist/engine/random.js";
import { createSampler } from "../../dist/engine/sampler.js";
import { softmaxWeights } from "../../dist/engine/softmax-weights.js";
import { TopCandidates } from "../../dist/engine/top-candidates.js";
import { generator } from "../helpers/checkpoint.js";

const none: number[] = [];

/** Normally distributed, by the sum of uniform numbers, and rounded so that ties occur. */
function randomLogits(count: number, seed: number, step = 0): Float32Array {
  const random = generator(seed);
  return Float32Array.from({ length: count }, () => {
    let sum = 0;
    for (let i = 0; i < 6; i++) sum += random() / 2 ** 32;
    const value = (sum - 3) * 4;
    return step === 0 ? value : Math.round(value / step) * step;
  });
}

describe("greedy", () => {
  it("takes the first of the greatest logits", () => {
    const sample = createSampler({}, 5);
    expect(sample(Float32Array.of(1, 3, 2, 3, -1), none)).toBe(1);
    expect(sample(Float32Array.of(-5, -4, -4, -9, -Infinity), none)).toBe(1);
    expect(sample(new Float32Array(5), none)).toBe(0);
  });

  it("penalizes tokens seen, each once, dividing positive and multiplying negative logits", () => {
    const sample = createSampler({ repetitionPenalty: 2 }, 3);
    const logits = Float32Array.of(4, 3, -1);
    expect(sample(logits, none)).toBe(0);
    expect(sample(logits, [0])).toBe(1);
    expect(sample(logits, [0, 1, 1, 1])).toBe(0);
    expect(sample(Float32Array.of(-1, -1.5, -1.9), Int32Array.of(0))).toBe(1);
    expect(sample(Float32Array.of(-1, -1.5, -2.1), [0, 1, 99, -7])).toBe(0);
    expect([...logits]).toEqual([4, 3, -1]);
  });

  it.each([
    [Float32Array.of(1, Number.NaN, 2), "NaN for token 1"],
    [Float32Array.of(Number.NaN, 1, 2), "NaN for token 0"],
    [Float32Array.of(1, 2, Infinity), "Infinity for token 2"],
    [Float32Array.of(-Infinity, -Infinity, -Infinity), "-Infinity for every token"],
  ])("refuses %s", (logits, words) => {
    for (const options of [{}, { temperature: 1 }, { repetitionPenalty: 2 }]) {
      const sample = createSampler(options, 3);
      expect(() => sample(logits, none)).toThrow(expect.objectContaining({ code: "DEVICE_FAILED" }));
      expect(() => sample(logits, none)).toThrow(words);
    }
  });

  it("refuses logits of another vocabulary", () => {
    expect(() => createSampler({}, 3)(new Float32Array(4), none)).toThrow(
      expect.objectContaining({ code: "INTERNAL" }),
    );
  });
});

/** What transformers does, by sorting: the ids that stay, with their probabilities. */
function distribution(logits: Float32Array, options: SamplingOptions): Map<number, number> {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  let kept = [...logits.entries()].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  if (topK > 0) kept = kept.slice(0, topK);
  const top = kept[0]?.[1] ?? 0;
  let weighted = kept.map(([id, logit]) => ({ id, weight: Math.exp((logit - top) / temperature) }));
  const total = weighted.reduce((sum, { weight }) => sum + weight, 0);
  let above = 0;
  weighted = weighted.filter(({ weight }, rank) => {
    const stays = rank === 0 || topP === 1 || above < topP * total;
    above += weight;
    return stays;
  });
  weighted = weighted.filter(({ weight }) => weight >= minP);
  const sum = weighted.reduce((rest, { weight }) => rest + weight, 0);
  return new Map(weighted.map(({ id, weight }) => [id, weight / sum]));
}

describe("sampling", () => {
  const draws = 4000;
  it.each([
    { temperature: 1 },
    { temperature: 0.5 },
    { temperature: 3 },
    { temperature: 1, topK: 1 },
    { temperature: 1, topK: 5 },
    { temperature: 1, topK: 1000 },
    { temperature: 1, topP: 0 },
    { temperature: 1, topP: 0.3 },
    { temperature: 1, topP: 0.9 },
    { temperature: 1, minP: 0.1 },
    { temperature: 1, minP: 1 },
    { temperature: 1.5, topK: 12, topP: 0.8, minP: 0.15 },
  ])("with %j follows the distribution of transformers", (options) => {
    for (const [seed, step] of [
      [1, 0],
      [2, 1],
    ] as const) {
      const logits = randomLogits(40, seed, step);
      const expected = distribution(logits, options);
      const sample = createSampler({ ...options, seed }, logits.length);
      const counts = new Map<number, number>();
      for (let i = 0; i < draws; i++) {
        const token = sample(logits, none);
        counts.set(token, (counts.get(token) ?? 0) + 1);
      }
      for (const token of counts.keys()) expect(expected.has(token), `token ${token}`).toBe(true);
      for (const [token, probability] of expected) {
        const deviation = Math.sqrt(draws * probability * (1 - probability));
        const difference = Math.abs((counts.get(token) ?? 0) - draws * probability);
        expect(difference, `token ${token}`).toBeLessThanOrEqual(5 * deviation + 1e-9);
      }
    }
  });

  it("is greedy in the limit of low temperatures, also absurd ones", () => {
    const logits = randomLogits(100, 5);
    const best = createSampler({}, 100)(logits, none);
    for (const temperature of [1e-3, 1e-30, 5e-324]) {
      const sample = createSampler({ temperature, topP: 0.99, topK: 90 }, 100);
      for (let i = 0; i < 20; i++) expect(sample(logits, none)).toBe(best);
    }
  });

  it("never draws a token whose logit is -Infinity", () => {
    const logits = Float32Array.of(-Infinity, 0, -Infinity, 0, -Infinity);
    const sample = createSampler({ temperature: 100, topK: 4, seed: 3 }, 5);
    for (let i = 0; i < 200; i++) expect([1, 3]).toContain(sample(logits, none));
  });

  it("gives the same tokens for the same seed, others for another, and leaves the logits alone", () => {
    const logits = randomLogits(5000, 9);
    const copy = logits.slice();
    const run = (seed?: number) => {
      const sample = createSampler({ temperature: 2, topP: 0.95, repetitionPenalty: 1.2, seed }, logits.length);
      const tokens: number[] = [];
      for (let i = 0; i < 30; i++) tokens.push(sample(logits, tokens));
      return tokens;
    };
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
    expect(run()).not.toEqual(run());
    expect(logits).toEqual(copy);
  });

  it.each([
    ["temperature", [-1, Number.NaN, Infinity, "1", true]],
    ["topK", [-1, 1.5, Number.NaN, Infinity, "5"]],
    ["topP", [-0.1, 1.1, Number.NaN, "0.9"]],
    ["minP", [-0.1, 1.1, Number.NaN]],
    ["repetitionPenalty", [0, -1, Number.NaN, Infinity]],
    ["seed", [-1, 1.5, 2 ** 53, Number.NaN, "7"]],
  ])("refuses %s of %j, saying what it may be", (name, values) => {
    for (const value of values) {
      const create = () => createSampler({ [name]: value } as SamplingOptions, 10);
      expect(create).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
      expect(create).toThrow(new RegExp(`^${name} is .*; it must be `));
    }
  });
});

describe("the best candidates", () => {
  const special = [0, -0, 1e-45, -1e-45, 3e38, -3e38, 1, 1, -1, -1, -Infinity];

  it.each([
    ["distinct", randomLogits(3000, 1)],
    ["with ties", randomLogits(3000, 2, 0.5)],
    ["all equal", new Float32Array(500).fill(-2.5)],
    ["special", Float32Array.from([...special, ...special])],
  ])("of scores that are %s are those that sorting finds", (_, scores) => {
    const value = (id: number) => scores[id] as number;
    const sorted = [...scores.keys()].sort(
      (a, b) => value(b) - value(a) || Number(Object.is(value(a), -0)) - Number(Object.is(value(b), -0)) || a - b,
    );
    const candidates = new TopCandidates(scores);
    for (const count of [1, 2, 3, 7, 20, Math.floor(scores.length / 2), scores.length - 1, scores.length]) {
      candidates.reset();
      candidates.keep(count);
      const kept = [...candidates.tokens.subarray(0, candidates.count)];
      expect(kept).toEqual(sorted.slice(0, count).sort((a, b) => a - b));
    }
  });

  it("keep the whole vocabulary where rounding puts the target above the sum", () => {
    const scores = randomLogits(1000, 3);
    const candidates = new TopCandidates(scores);
    const weights = Float64Array.from(scores, (score) => Math.exp(score));
    candidates.reset();
    candidates.keep(weights.reduce((sum, weight) => sum + weight, 0) * (1 + 1e-12), weights);
    expect(candidates.count).toBe(1000);
  });
});

describe("softmax weights", () => {
  it("are exponentials to twelve digits, down to zero", () => {
    const scores = Float32Array.from({ length: 4000 }, (_, i) => -i * 0.2);
    const weights = new Float64Array(scores.length);
    const sum = softmaxWeights(scores, Uint32Array.from(scores.keys()), scores.length, 0, 1, weights);
    scores.forEach((score, i) => {
      if (score > -690) expect(Math.abs((weights[i] ?? 0) / Math.exp(score) - 1)).toBeLessThan(1e-12);
      if (score < -701) expect(weights[i]).toBe(0);
    });
    expect(sum).toBeCloseTo(1 / (1 - Math.exp(-0.2)), 6);
  });
});

describe("the random generator", () => {
  /** xoshiro128** and SplitMix64 as their authors print them, in BigInt. */
  function* xoshiro(state: bigint[]): Generator<bigint> {
    const word = (value: bigint) => BigInt.asUintN(32, value);
    const rotate = (value: bigint, by: bigint) => word((value << by) | (value >> (32n - by)));
    const s = [...state] as [bigint, bigint, bigint, bigint];
    for (;;) {
      yield word(rotate(word(s[1] * 5n), 7n) * 9n);
      const t = word(s[1] << 9n);
      s[2] ^= s[0];
      s[3] ^= s[1];
      s[1] ^= s[2];
      s[0] ^= s[3];
      s[2] ^= t;
      s[3] = rotate(s[3], 11n);
    }
  }

  function* splitMix(seed: bigint): Generator<bigint> {
    const word = (value: bigint) => BigInt.asUintN(64, value);
    for (let x = word(seed + 0x9e3779b97f4a7c15n); ; x = word(x + 0x9e3779b97f4a7c15n)) {
      let z = word((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
      z = word((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
      yield z ^ (z >> 31n);
    }
  }

  const take = (source: Generator<bigint>, count: number) =>
    Array.from({ length: count }, () => source.next().value as bigint);

  it("is xoshiro128** seeded by SplitMix64", () => {
    // Published values of both.
    expect(take(xoshiro([1n, 2n, 3n, 4n]), 4)).toEqual([11520n, 0n, 5927040n, 70819200n]);
    expect(take(splitMix(0n), 2)).toEqual([0xe220a8397b1dcdafn, 0x6e789e6aa1b965f4n]);
    for (const seed of [0, 1, 42, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
      const words = take(splitMix(BigInt(seed)), 2).flatMap((word) => [word & 0xffffffffn, word >> 32n]);
      const outputs = take(xoshiro(words), 20);
      const random = createRandom(seed);
      for (let i = 0; i < outputs.length; i += 2) {
        const [high, low] = outputs.slice(i, i + 2).map(Number) as [number, number];
        expect(random()).toBe(((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53);
      }
    }
  });

  it("is even over [0, 1)", () => {
    const random = createRandom(11);
    const values = Array.from({ length: 20000 }, random);
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
    const bins = Array.from(
      { length: 10 },
      (_, bin) => values.filter((value) => Math.floor(value * 10) === bin).length,
    );
    for (const bin of bins) expect(Math.abs(bin - 2000)).toBeLessThan(5 * Math.sqrt(1800));
  });

  it("takes seeds that differ from the system", () => {
    const seeds = new Set(Array.from({ length: 20 }, randomSeed));
    expect(seeds.size).toBe(20);
    for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true);
  });
});
