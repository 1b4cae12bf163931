/** `layerstream bench`, without the command line: what is measured and how the figures follow from it. */
import type { Model, Stats } from "../engine/contract.js";
import type { ArithmeticPeaks } from "../engine/roofline.js";
import type { PromptOperations } from "../models/operations.js";

export interface BenchmarkFigures {
  tokensPerSecond: number;
  secondsPerToken: number;
  /** Half of the tokens took longer. */
  medianSecondsPerToken: number;
  prefillTokensPerSecond: number;
  /** Of the prompt, counted from the model's shapes, and the rate of both together until the first token. */
  promptLinearOperations: number;
  promptAttentionOperations: number;
  promptOperationsPerSecond: number;
  /** What the processor does at most, without touching memory: multiply-adds of float32; of pairs of bfloat16, 0 if it has none. */
  float32PeakOperationsPerSecond: number;
  bfloat16PeakOperationsPerSecond: number;
  /** The prompt's rate over the higher of the two peaks. */
  promptPeakFraction: number;
  bytesStreamedPerToken: number;
  heldBytes: number;
  /** While reads were under way. */
  diskBytesPerSecond: number;
  /** A raw direct read of the same files: the mean of one just before and one just after. */
  diskRooflineBytesPerSecond: number;
  /** Time that the raw disk rate would need for a token's bytes, over the time a token took; null if nothing streams. */
  rooflineFraction: number | null;
  /** To a device with memory of its own. */
  bytesCopiedPerToken: number;
  /** Of copies alone, just before and just after; null if nothing is copied. */
  copyRooflineBytesPerSecond: number | null;
  /** Time that they would need for a token's bytes, over the time a token took; null if nothing is copied. */
  copyFraction: number | null;
  /** Weights that a token's products go through. */
  bytesMultipliedPerToken: number;
  /** Of plain reads by as many threads, or of the device's own memory, just after; null if something streams or is copied. */
  memoryBytesPerSecond: number | null;
  /** Time that memory would need for a token's weights, over the time a token took; null if something streams or is copied. */
  memoryFraction: number | null;
  ioWaitSeconds: number;
  computeSeconds: number;
  /** Processors that reading kept busy: its processor time over the time of all tokens. */
  readCpuShare: number;
  /** From the start of the process to the first token, without the raw read before. */
  coldStartSeconds: number;
  peakMemoryBytes: number;
}

export interface BenchmarkRun {
  promptTokens: number;
  /** Until the first token came. */
  prefillSeconds: number;
  /** From the start of the process until then, less `idleSeconds`. */
  coldStartSeconds: number;
  /** One for each token after the first. */
  tokenSeconds: number[];
  /** At the first token and at the last. */
  before: Stats;
  after: Stats;
}

/** Uniform token ids, from a linear congruential generator: the same for the same seed on every machine. */
export function randomTokenIds(count: number, vocabSize: number, seed: number): number[] {
  let state = BigInt(seed);
  return Array.from({ length: count }, () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number((state >> 33n) % BigInt(vocabSize));
  });
}

/**
 * Generates `newTokens` (at least 2) greedily after the prompt, timing each. `idleSeconds`: what of the process's life until
 * now belongs to none of it.
 */
export async function runBenchmark(
  model: Model,
  prompt: number[],
  newTokens: number,
  signal: AbortSignal,
  idleSeconds = 0,
): Promise<BenchmarkRun> {
  const tokenSeconds: number[] = [];
  let prefillSeconds = 0;
  let coldStartSeconds = 0;
  let before: Stats | undefined;
  let last = performance.now();
  for await (const _ of model.generate(prompt, { maxNewTokens: newTokens, ignoreEos: true, signal })) {
    const now = performance.now();
    if (before) tokenSeconds.push((now - last) / 1000);
    else {
      prefillSeconds = (now - last) / 1000;
      coldStartSeconds = process.uptime() - idleSeconds;
      before = model.stats();
    }
    last = now;
  }
  const after = model.stats();
  return {
    promptTokens: prompt.length,
    prefillSeconds,
    coldStartSeconds,
    tokenSeconds,
    before: before ?? after,
    after,
  };
}

/** Bytes a second. */
export interface RawRates {
  /** Raw reads of the same files. */
  disk: readonly number[];
  /** Copies to the device; none where nothing is copied. */
  copies: readonly number[];
  /** Of memory, if it was measured. */
  memory: number | undefined;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function benchmarkFigures(
  run: BenchmarkRun,
  rates: RawRates,
  { linear, attention }: PromptOperations,
  peaks: ArithmeticPeaks,
): BenchmarkFigures {
  const { before, after, tokenSeconds } = run;
  const tokens = tokenSeconds.length;
  const seconds = tokenSeconds.reduce((sum, value) => sum + value, 0);
  const secondsPerToken = seconds / tokens;
  const bytesStreamed = after.bytesStreamed - before.bytesStreamed;
  const bytesStreamedPerToken = bytesStreamed / tokens;
  const bytesMultipliedPerToken = (after.bytesMultiplied - before.bytesMultiplied) / tokens;
  const readSeconds = after.readSeconds - before.readSeconds;
  const bytesCopiedPerToken = (after.bytesCopied - before.bytesCopied) / tokens;
  const copies = bytesCopiedPerToken > 0 && rates.copies.length > 0 ? mean(rates.copies) : undefined;
  const roofline = mean(rates.disk);
  const promptOperationsPerSecond = (linear + attention) / run.prefillSeconds;
  return {
    tokensPerSecond: 1 / secondsPerToken,
    secondsPerToken,
    medianSecondsPerToken: [...tokenSeconds].sort((a, b) => a - b)[tokens >> 1] ?? Number.NaN,
    prefillTokensPerSecond: run.promptTokens / run.prefillSeconds,
    promptLinearOperations: linear,
    promptAttentionOperations: attention,
    promptOperationsPerSecond,
    float32PeakOperationsPerSecond: peaks.float32,
    bfloat16PeakOperationsPerSecond: peaks.bfloat16,
    promptPeakFraction: promptOperationsPerSecond / Math.max(peaks.float32, peaks.bfloat16),
    bytesStreamedPerToken,
    heldBytes: after.heldBytes,
    diskBytesPerSecond: readSeconds > 0 ? bytesStreamed / readSeconds : 0,
    diskRooflineBytesPerSecond: roofline,
    rooflineFraction: bytesStreamed > 0 ? bytesStreamedPerToken / roofline / secondsPerToken : null,
    bytesCopiedPerToken,
    copyRooflineBytesPerSecond: copies ?? null,
    copyFraction: copies === undefined ? null : bytesCopiedPerToken / copies / secondsPerToken,
    bytesMultipliedPerToken,
    memoryBytesPerSecond: rates.memory ?? null,
    memoryFraction: rates.memory === undefined ? null : bytesMultipliedPerToken / rates.memory / secondsPerToken,
    ioWaitSeconds: after.ioWaitSeconds - before.ioWaitSeconds,
    computeSeconds: after.computeSeconds - before.computeSeconds,
    readCpuShare: (after.readCpuSeconds - before.readCpuSeconds) / seconds,
    coldStartSeconds: run.coldStartSeconds,
    peakMemoryBytes: after.peakMemoryBytes,
  };
}
