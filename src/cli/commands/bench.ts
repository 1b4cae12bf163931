import type { Command } from "commander";
import type { Model } from "../../engine/contract.js";
import { LayerstreamError } from "../../errors.js";
import type { PromptOperations } from "../../models/operations.js";
import { formatBytes, formatDuration, formatNumber, formatRate } from "../../units.js";
import { decimal, integer } from "../arguments.js";
import { type BenchmarkFigures, benchmarkFigures, randomTokenIds, runBenchmark } from "../benchmark.js";
import type { Interrupts } from "../interrupts.js";
import { addModelOptions, loadModel, type ModelOptions } from "../model-options.js";
import { profileField, reportProfile } from "../profile-report.js";
import { formatTable } from "../table.js";

interface Options extends ModelOptions {
  promptTokens: number;
  newTokens: number;
  rooflineSeconds: number;
  seed: number;
  json?: boolean;
}

/** `layerstream bench`: speed of a model against the disk's raw rate, measured in the same run. No tokenizer needed. */
export function addBenchCommand(program: Command, interrupts: Interrupts): void {
  const command = program
    .command("bench")
    .description("measure a model's speed, and the disk's raw rate just before and after; needs no tokenizer")
    .argument("<model>", "checkpoint, GGUF file or layer store")
    .option("--prompt-tokens <count>", "random token ids in the prompt", integer(1), 16)
    .option("--new-tokens <count>", "tokens to generate", integer(2), 9)
    .option("--roofline-seconds <seconds>", "length of each raw read", decimal(0.01), 2)
    .option("--seed <number>", "for the random prompt", integer(0), 1);
  addModelOptions(command)
    .option("--json", "print one JSON object")
    .action(async (modelPath: string, options: Options) => {
      const { measureArithmeticPeaks, measureCopyRate, measureDeviceRates, measureDiskRate, measureMemoryRate } =
        await import("../../engine/roofline.js");
      const store = await storeOf(modelPath, options, interrupts);
      const rawBegin = performance.now();
      const rateBefore = await measureDiskRate(store, options.rooflineSeconds);
      const rawSeconds = (performance.now() - rawBegin) / 1000;
      const model = await loadModel(store, options, interrupts);
      const { device } = model.stats();
      let copiesBefore: number;
      let run: Awaited<ReturnType<typeof runBenchmark>>;
      let profile: ReturnType<typeof profileField>;
      try {
        copiesBefore = measureCopyRate(device, options.rooflineSeconds / 4);
        const prompt = randomTokenIds(options.promptTokens, model.vocabSize, options.seed);
        run = await runBenchmark(model, prompt, options.newTokens, interrupts.signal, rawSeconds);
        profile = profileField(model, options);
        await reportProfile(model, options);
      } finally {
        await model.dispose();
      }
      if (run.tokenSeconds.length === 0) {
        interrupts.signal.throwIfAborted();
        throw new LayerstreamError("INVALID_ARGUMENT", "Fewer than two tokens could be generated.", {
          remedy: "Raise --max-seq-len or lower --prompt-tokens.",
        });
      }
      const moved = ({ bytesStreamed, bytesCopied }: typeof run.after) => bytesStreamed + bytesCopied;
      const ownMemory = run.after.vramBudgetBytes > 0;
      const memoryRate = () =>
        ownMemory
          ? measureDeviceRates(device, options.rooflineSeconds / 4).memoryBytesPerSecond
          : measureMemoryRate(run.after, options.rooflineSeconds);
      const rates = {
        disk: [rateBefore, await measureDiskRate(store, options.rooflineSeconds)],
        copies: ownMemory ? [copiesBefore, measureCopyRate(device, options.rooflineSeconds / 4)] : [],
        memory: moved(run.after) === moved(run.before) ? memoryRate() : undefined,
      };
      const operations = await operationsOf(store, run.promptTokens);
      const figures = benchmarkFigures(run, rates, operations, measureArithmeticPeaks(run.after.threads));
      console.log(options.json ? JSON.stringify({ ...figures, ...profile }) : formatFigures(figures));
    });
}

/** The raw read needs the store's files before the model is loaded: a checkpoint is decomposed first. */
async function storeOf(modelPath: string, options: Options, interrupts: Interrupts): Promise<string> {
  const { isLayerStore } = await import("../../checkpoint/layer-store.js");
  if (await isLayerStore(modelPath)) return modelPath;
  const model: Model = await loadModel(modelPath, options, interrupts);
  await model.dispose();
  return model.store;
}

function giga(operations: number): string {
  return formatNumber(operations / 1e9);
}

function formatOperations(figures: BenchmarkFigures): string {
  const { promptLinearOperations: linear, promptAttentionOperations: attention, promptOperationsPerSecond } = figures;
  return `${giga(promptOperationsPerSecond)} GFLOP/s: ${giga(linear)} GFLOP linear, ${giga(attention)} GFLOP attention`;
}

function formatPeaks(figures: BenchmarkFigures): string {
  const { float32PeakOperationsPerSecond: float32, bfloat16PeakOperationsPerSecond: bfloat16 } = figures;
  const share = `${(100 * figures.promptPeakFraction).toFixed(1)} %`;
  if (bfloat16 === 0) return `${share} of ${giga(float32)} GFLOP/s in float32`;
  return `${share} of ${giga(bfloat16)} GFLOP/s in bfloat16 (float32: ${giga(float32)})`;
}

/** Counted from the shapes of the model, not by what ran. */
async function operationsOf(store: string, tokens: number): Promise<PromptOperations> {
  const { openLayerStore } = await import("../../checkpoint/layer-store.js");
  const { architectureOf } = await import("../../models/registry.js");
  const { promptOperations } = await import("../../models/operations.js");
  const { manifest, filePath } = await openLayerStore(store);
  return promptOperations(architectureOf(manifest.config, filePath("config.json")), tokens);
}

function copyRows(figures: BenchmarkFigures, fraction: number): [string, string][] {
  const rate = formatRate(figures.copyRooflineBytesPerSecond ?? 0);
  return [
    ["copied per token", `${formatBytes(figures.bytesCopiedPerToken)}, to the device`],
    ["share of the copy rate", `${(100 * fraction).toFixed(1)} % of ${rate}`],
  ];
}

function formatFigures(figures: BenchmarkFigures): string {
  const streams = figures.rooflineFraction !== null;
  return formatTable([
    [
      "decode",
      `${formatNumber(figures.tokensPerSecond)} tokens a second, ${formatDuration(figures.secondsPerToken)} each`,
    ],
    ["prefill", `${formatNumber(figures.prefillTokensPerSecond)} tokens a second`],
    ["its arithmetic", formatOperations(figures)],
    ["share of the peak", formatPeaks(figures)],
    ["streamed per token", streams ? formatBytes(figures.bytesStreamedPerToken) : "nothing: the whole model is held"],
    ["held in memory", formatBytes(figures.heldBytes)],
    ["disk rate", streams ? formatRate(figures.diskBytesPerSecond) : "-"],
    ["raw disk rate", formatRate(figures.diskRooflineBytesPerSecond)],
    ["share of the roofline", streams ? `${(100 * (figures.rooflineFraction ?? 0)).toFixed(1)} %` : "-"],
    ...(figures.copyFraction === null ? [] : copyRows(figures, figures.copyFraction)),
    ["memory rate", figures.memoryBytesPerSecond === null ? "-" : formatRate(figures.memoryBytesPerSecond)],
    ["share of it", figures.memoryFraction === null ? "-" : `${(100 * figures.memoryFraction).toFixed(1)} %`],
    ["waiting for the disk", formatDuration(figures.ioWaitSeconds)],
    ["computing", formatDuration(figures.computeSeconds)],
    ["processors that read", figures.readCpuShare.toFixed(3)],
    ["first token after", formatDuration(figures.coldStartSeconds)],
    ["peak memory", formatBytes(figures.peakMemoryBytes)],
  ]);
}
