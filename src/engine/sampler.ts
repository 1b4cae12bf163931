import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { SamplingOptions } from "./contract.js";
import { createRandom, MAX_SEED, randomSeed } from "./random.js";
import { softmaxWeights } from "./softmax-weights.js";
import { TopCandidates } from "./top-candidates.js";

/**
 * Chooses the next token. `logits` has vocabSize entries and is not changed; `previousTokens` are prompt and output so
 * far, read only if there is a repetition penalty.
 * @throws DEVICE_FAILED if a logit is NaN or +Infinity, or all are -Infinity.
 */
export type Sampler = (logits: Float32Array, previousTokens: ArrayLike<number>) => number;

/**
 * Filters in the order of transformers: repetition penalty, temperature, top-k, top-p, min-p. Temperature 0 takes the
 * first maximum. Where scores are equal at the boundary of top-k or top-p, lower token ids stay. Nothing is allocated
 * for a token, and the cost is proportional to the vocabulary.
 * @throws INVALID_ARGUMENT naming the option and its range.
 */
export function createSampler(options: SamplingOptions, vocabSize: number): Sampler {
  const settings = checkOptions(options);
  const prepare = createPreparation(vocabSize, settings.repetitionPenalty);
  if (settings.temperature === 0) {
    return (logits, previousTokens) => firstMaximum(prepare(logits, previousTokens));
  }
  const scores = new Float32Array(vocabSize);
  const draw = createDraw(scores, settings, createRandom(settings.seed));
  return (logits, previousTokens) => {
    scores.set(prepare(logits, previousTokens));
    return draw(firstMaximum(scores));
  };
}

/** Whether the first of the greatest logits is what a sampler with these (valid) options takes. */
export function isGreedy({ temperature = 0, repetitionPenalty = 1 }: SamplingOptions): boolean {
  return temperature === 0 && repetitionPenalty === 1;
}

type Settings = Required<SamplingOptions>;

function checkOptions(options: SamplingOptions): Settings {
  const check = (name: keyof SamplingOptions, fallback: number, range: string, valid: (value: number) => boolean) => {
    const value: unknown = options[name] ?? fallback;
    if (typeof value !== "number" || !valid(value)) {
      throw new LayerstreamError("INVALID_ARGUMENT", `${name} is ${String(value)}; it must be ${range}.`);
    }
    return value;
  };
  const isFraction = (value: number): boolean => value >= 0 && value <= 1;
  const isPositive = (value: number): boolean => value > 0 && Number.isFinite(value);
  return {
    temperature: check("temperature", 0, "0 (greedy) or a finite number above it", (t) => t === 0 || isPositive(t)),
    topK: check("topK", 0, "a whole number, 0 for no limit", (k) => Number.isSafeInteger(k) && k >= 0),
    topP: check("topP", 1, "from 0 to 1, 1 for no limit", isFraction),
    minP: check("minP", 0, "from 0 (no limit) to 1", isFraction),
    repetitionPenalty: check("repetitionPenalty", 1, "a finite number above 0, 1 for none", isPositive),
    seed: check("seed", randomSeed(), `a whole number from 0 to ${MAX_SEED}`, (s) => Number.isSafeInteger(s) && s >= 0),
  };
}

/** Applies the repetition penalty, once to each token seen (Keskar et al., 2019, CTRL). */
function createPreparation(
  vocabSize: number,
  penalty: number,
): (logits: Float32Array, previous: ArrayLike<number>) => Float32Array {
  const checkSize = (logits: Float32Array): void => {
    if (logits.length !== vocabSize) {
      throw new LayerstreamError("INTERNAL", `The sampler got ${logits.length} logits for ${vocabSize} tokens.`);
    }
  };
  if (penalty === 1) {
    return (logits) => {
      checkSize(logits);
      return logits;
    };
  }
  const scores = new Float32Array(vocabSize);
  return (logits, previous) => {
    checkSize(logits);
    scores.set(logits);
    for (let i = 0; i < previous.length; i++) {
      const token = previous[i] as number;
      const logit = logits[token];
      if (logit !== undefined) scores[token] = logit < 0 ? logit * penalty : logit / penalty;
    }
    return scores;
  };
}

/** Id of the first of the greatest scores. */
function firstMaximum(scores: Float32Array): number {
  const token = native().firstMaximum(scores);
  if (token >= 0) return token;
  const nan = scores.findIndex(Number.isNaN);
  if (nan >= 0) throw notFinite(`NaN for token ${nan}`);
  const infinite = scores.indexOf(Number.POSITIVE_INFINITY);
  throw notFinite(infinite < 0 ? "-Infinity for every token" : `Infinity for token ${infinite}`);
}

function notFinite(what: string): LayerstreamError {
  return new LayerstreamError("DEVICE_FAILED", `The model's logits hold ${what}.`, {
    remedy: "The weights are damaged or overflow: run layerstream verify, or decompose the checkpoint again.",
  });
}

/** Draws from softmax(scores / temperature) after top-k, top-p and min-p, given the best token. */
function createDraw(scores: Float32Array, settings: Settings, random: () => number): (best: number) => number {
  const { temperature, topK, topP, minP } = settings;
  const candidates = new TopCandidates(scores);
  const { tokens } = candidates;
  const weights = new Float64Array(scores.length);

  /** The best token's weight is 1, so that min-p is a bound on the weights. */
  const sumOfCandidates = (): number => {
    let sum = 0;
    for (let i = 0; i < candidates.count; i++) {
      const weight = weights[tokens[i] as number] as number;
      if (weight >= minP) sum += weight;
    }
    return sum;
  };

  /** The token in whose stretch of the summed weights `position` lies. */
  const pick = (position: number, best: number): number => {
    let chosen = best;
    let left = position;
    for (let i = 0; i < candidates.count; i++) {
      const token = tokens[i] as number;
      const weight = weights[token] as number;
      if (weight < minP || weight === 0) continue;
      chosen = token;
      left -= weight;
      if (left < 0) break;
    }
    return chosen;
  };

  return (best) => {
    if (topK > 0 && topK < scores.length) candidates.best(topK);
    else candidates.reset();
    let sum = softmaxWeights(scores, tokens, candidates.count, scores[best] as number, temperature, weights);
    if (topP < 1) candidates.keep(topP * sum, weights);
    if (topP < 1 || minP > 0) sum = sumOfCandidates();
    return pick(random() * sum, best);
  };
}
