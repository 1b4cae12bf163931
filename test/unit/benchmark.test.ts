import { describe, expect, it } from "vitest";
import { benchmarkFigures, randomTokenIds } from "../../dist/cli/benchmark.js";
import type { Stats } from "../../dist/engine/contract.js";

const noStats: Stats = {
  passes: 0,
  promptTokens: 0,
  generatedTokens: 0,
  prefillSeconds: 0,
  decodeSeconds: 0,
  bytesStreamed: 0,
  readSeconds: 0,
  readCpuSeconds: 0,
  bytesPerPass: 0,
  heldBytes: 7,
  deviceHeldBytes: 0,
  hostHeldBytes: 7,
  weightBytes: 0,
  ringBytes: 0,
  slotBytes: 0,
  kvBytes: 0,
  kvSpilledBytes: 0,
  kvBytesRead: 0,
  kvReadSeconds: 0,
  kvBytesWritten: 0,
  kvWriteSeconds: 0,
  kvDtype: "f32",
  activationBytes: 0,
  memoryBudgetBytes: 0,
  vramBudgetBytes: 0,
  ioWaitSeconds: 0,
  computeSeconds: 0,
  bytesCopied: 0,
  bytesMultiplied: 0,
  peakMemoryBytes: 99,
  threads: 1,
  device: "cpu",
  kernels: "scalar",
  reader: "io_uring",
  readerReason: undefined,
  readMode: "direct",
  readModeReason: undefined,
};

describe("benchmarkFigures", () => {
  it("leaves the prompt's pass out and compares with the mean raw rate", () => {
    const figures = benchmarkFigures(
      {
        promptTokens: 16,
        prefillSeconds: 4,
        coldStartSeconds: 5,
        tokenSeconds: [1, 2, 6],
        before: {
          ...noStats,
          bytesStreamed: 1000,
          readSeconds: 10,
          readCpuSeconds: 0.5,
          ioWaitSeconds: 1,
          computeSeconds: 2,
          bytesMultiplied: 500,
        },
        after: {
          ...noStats,
          bytesStreamed: 4000,
          readSeconds: 16,
          readCpuSeconds: 5,
          ioWaitSeconds: 5,
          computeSeconds: 4,
          bytesCopied: 4500,
          bytesMultiplied: 6500,
        },
      },
      { disk: [400, 600], copies: [900, 1100], memory: undefined },
      { linear: 30, attention: 10 },
      { float32: 20, bfloat16: 40 },
    );
    expect(figures).toEqual({
      tokensPerSecond: 1 / 3,
      secondsPerToken: 3,
      medianSecondsPerToken: 2,
      prefillTokensPerSecond: 4,
      promptLinearOperations: 30,
      promptAttentionOperations: 10,
      promptOperationsPerSecond: 10,
      float32PeakOperationsPerSecond: 20,
      bfloat16PeakOperationsPerSecond: 40,
      promptPeakFraction: 0.25,
      bytesStreamedPerToken: 1000,
      heldBytes: 7,
      diskBytesPerSecond: 500,
      diskRooflineBytesPerSecond: 500,
      rooflineFraction: 1000 / 500 / 3,
      bytesCopiedPerToken: 1500,
      copyRooflineBytesPerSecond: 1000,
      copyFraction: 0.5,
      bytesMultipliedPerToken: 2000,
      memoryBytesPerSecond: null,
      memoryFraction: null,
      ioWaitSeconds: 4,
      computeSeconds: 2,
      readCpuShare: 0.5,
      coldStartSeconds: 5,
      peakMemoryBytes: 99,
    });
  });

  it("compares with the memory's rate, and not with the disk's, when nothing is streamed", () => {
    const run = {
      promptTokens: 1,
      prefillSeconds: 1,
      coldStartSeconds: 1,
      tokenSeconds: [2, 2],
      before: noStats,
      after: { ...noStats, bytesMultiplied: 600 },
    };
    const rates = { disk: [1], copies: [], memory: 200 };
    expect(benchmarkFigures(run, rates, { linear: 1, attention: 1 }, { float32: 4, bfloat16: 0 })).toMatchObject({
      rooflineFraction: null,
      diskBytesPerSecond: 0,
      bytesMultipliedPerToken: 300,
      memoryBytesPerSecond: 200,
      memoryFraction: 0.75,
      copyFraction: null,
      promptPeakFraction: 0.5,
    });
  });
});

describe("randomTokenIds", () => {
  it("is reproducible, in range and different for each seed", () => {
    const ids = randomTokenIds(1000, 300, 1);
    expect(randomTokenIds(1000, 300, 1)).toEqual(ids);
    expect(randomTokenIds(1000, 300, 2)).not.toEqual(ids);
    expect(Math.min(...ids)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...ids)).toBeLessThan(300);
    expect(new Set(ids).size).toBeGreaterThan(200);
  });
});
