/** One loaded model: what it is made of, and what it says about itself. `passes.ts` runs it. */
import type { LayerStore } from "../checkpoint/layer-store.js";
import { MANIFEST_FILE } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import type { Architecture } from "../models/architecture.js";
import { dependsOnLength, ropeFrequencies } from "../models/rope.js";
import { native } from "../native/binding.js";
import type { NativeModelDescription, NativeModelStats, TraceActivity } from "../native/types.js";
import { carriesNormed } from "./activations.js";
import type { Residency, ResidencyEntry, Stats } from "./contract.js";
import { cancelAtExit, forgetAtExit } from "./exit.js";
import { type ResidencyStage, stageParts } from "./held-chunks.js";
import { KvCache, type Sequence } from "./kv-cache.js";
import { cgroupLimitBytes, peakResidentBytes } from "./memory.js";
import { describeModel, type ModelDescription } from "./model-description.js";
import { disposedError, Passes, type RunOptions } from "./passes.js";
import { type PlacedInput, placedInputOf } from "./placed-input.js";
import { Prefetcher } from "./prefetch.js";
import { type Profile, readProfile } from "./profile.js";
import { planResidency } from "./residency.js";
import type { EngineOptions } from "./residency-input.js";
import { kvPartPages, PAGE_POSITIONS, type ResidencyInput, type ResidencyPlan } from "./residency-sizes.js";
import { TRACE_SPANS, writeTrace } from "./trace-file.js";
import { reservedSizes, WorkingMemoryPlanner } from "./working-memory.js";

interface PlannedModel {
  plan: ResidencyPlan;
  reserved: ReturnType<typeof reservedSizes>;
}

function describeNative(
  architecture: Architecture,
  description: ModelDescription,
  options: EngineOptions,
  input: ResidencyInput,
  { plan, reserved }: PlannedModel,
): NativeModelDescription {
  return {
    device: options.device,
    threads: options.threads,
    precision: options.precision,
    files: description.files,
    plans: description.plans,
    stages: description.stages.map(({ native: stage }, index) => ({
      ...stage,
      heldChunks: plan.held[index],
      onProcessor: input.onProcessor?.[index] ?? false,
    })),
    embedding: description.embedding,
    registers: { ...architecture.registers },
    ropeDims: architecture.ropes.map((rope) => rope.rotaryDim),
    chunkBytes: plan.chunkBytes,
    ringBytes: plan.ringBytes,
    slotBytes: plan.slotBytes,
    readAhead: options.prefetching ?? true,
    expertRingBytes: plan.expertRingBytes,
    maxTokens: reserved.tokens,
    blockTokens: input.activations.blockTokens,
    normedCarried: carriesNormed(architecture),
    vocabSize: architecture.vocabSize,
    kvLayers: architecture.layerCount,
    kvHeads: architecture.kvCache.heads,
    keyDim: architecture.kvCache.keyDim,
    valueDim: architecture.kvCache.valueDim,
    pageCount: reserved.pages,
    pagePositions: PAGE_POSITIONS,
    kvPartPages: options.vram ? kvPartPages(input) : 0,
    traceSpans: options.profiling ? TRACE_SPANS : 0,
    kvFormat: options.kvFormat,
    kernelDirectory: options.kernelDirectory,
    spillDirectory: options.spillDirectory,
  };
}

export class Engine {
  readonly kvCache: KvCache;
  private readonly memory: WorkingMemoryPlanner;
  private readonly passes: Passes;
  private readonly residencyInput: ResidencyInput;
  private readonly placementReason: string | undefined;
  private generatedTokens = 0;
  private finalStats: NativeModelStats | undefined;
  private disposal: Promise<void> | undefined;

  private constructor(
    readonly store: LayerStore,
    readonly architecture: Architecture,
    private readonly description: ModelDescription,
    private readonly options: EngineOptions,
    placed: PlacedInput,
    { plan, reserved }: PlannedModel,
    private readonly model: number,
    private readonly prefetcher: Prefetcher,
  ) {
    this.residencyInput = placed.input;
    this.placementReason = placed.reason;
    const ropes = architecture.ropes.map((rope) => (dependsOnLength(rope) ? undefined : ropeFrequencies(rope, 1)));
    this.kvCache = new KvCache(reserved.pages, PAGE_POSITIONS, !ropes.includes(undefined));
    this.memory = new WorkingMemoryPlanner(placed.input, plan, this.kvCache);
    const pages = new Uint8Array(reserved.pages).fill(1, 0, plan.working.pages);
    native().setWorkingMemory(this.model, plan.working.tokens, pages, plan.kvLayers);
    this.kvCache.setCommitted(pages);
    cancelAtExit(this.model);
    this.passes = new Passes({
      model: this.model,
      store: store.path,
      vocabSize: architecture.vocabSize,
      ropeSpecs: architecture.ropes,
      ropes,
      memory: this.memory,
      kvCache: this.kvCache,
      prefetcher,
      profiling: options.profiling ?? false,
    });
  }

  /** @throws MEMORY_BUDGET_TOO_SMALL, STORE_INVALID, DEVICE_UNAVAILABLE, IO_ERROR */
  static async open(store: LayerStore, architecture: Architecture, options: EngineOptions): Promise<Engine> {
    const description = describeModel(architecture, store, options.adapters);
    const prefetcher = new Prefetcher();
    try {
      await prefetcher.warmUp();
      dropFileCaches(store);
      const placed = placedInputOf(architecture, description, options);
      const plan = planResidency(placed.input);
      const planned = { plan, reserved: reservedSizes(placed.input, plan) };
      const model = await native().createModel(
        describeNative(architecture, description, options, placed.input, planned),
      );
      try {
        return new Engine(store, architecture, description, options, placed, planned, model, prefetcher);
      } catch (error) {
        native().destroyModel(model);
        throw error;
      }
    } catch (error) {
      await prefetcher.close();
      throw error;
    }
  }

  /** See `Passes.run`. */
  run(sequence: Sequence, tokens: readonly number[], logits: Float32Array, options: RunOptions): Promise<number> {
    return this.passes.run(sequence, tokens, logits, options);
  }

  get plan(): ResidencyPlan {
    return this.memory.plan;
  }

  countGenerated(): void {
    this.generatedTokens++;
  }

  /** Decides anew what is held, so that logits of so many tokens fit. @throws MEMORY_BUDGET_TOO_SMALL */
  async reserveLogits(tokens: number): Promise<void> {
    await this.passes.changeMemory(() => this.memory.beforeLogits(tokens));
  }

  /**
   * Keeps a new budget from now on. What is held beyond it has been given back when this resolves.
   * @throws MEMORY_BUDGET_TOO_SMALL, the old budget still in force
   */
  async setBudget(budgetBytes: number): Promise<void> {
    await this.passes.changeMemory(() => this.memory.forBudget(budgetBytes));
  }

  stats(): Stats {
    const measured = this.finalStats ?? native().modelStats(this.model);
    return {
      ...this.passes.totals,
      generatedTokens: this.generatedTokens,
      ioWaitSeconds: measured.waitSeconds,
      computeSeconds: measured.computeSeconds,
      bytesCopied: measured.bytesCopied,
      bytesMultiplied: measured.bytesMultiplied,
      bytesStreamed: measured.bytesRead,
      readSeconds: measured.readSeconds,
      readCpuSeconds: measured.readCpuSeconds,
      bytesPerPass: this.plan.streamedBytes,
      heldBytes: this.plan.heldBytes,
      weightBytes: this.description.stages.reduce((bytes, stage) => bytes + stage.extentBytes, 0),
      ...this.heldByTier(),
      ringBytes: this.plan.ringBytes,
      slotBytes: this.plan.slotBytes,
      kvBytes: this.plan.kvBytes,
      kvSpilledBytes: this.plan.kvSpilledBytes,
      kvBytesRead: measured.kvBytesRead,
      kvReadSeconds: measured.kvReadSeconds,
      kvBytesWritten: measured.kvBytesWritten,
      kvWriteSeconds: measured.kvWriteSeconds,
      kvDtype: this.options.kvFormat,
      activationBytes: this.plan.activationBytes,
      memoryBudgetBytes: this.memory.budgetBytes,
      vramBudgetBytes: this.options.vram?.budgetBytes ?? 0,
      peakMemoryBytes: peakResidentBytes(),
      threads: this.options.threads,
      device: this.options.device,
      kernels: measured.kernels,
      reader: measured.reader,
      readerReason: measured.readerReason || undefined,
      readMode: measured.bufferedReason ? "buffered" : "direct",
      readModeReason: measured.bufferedReason || undefined,
    };
  }

  residency(): Residency {
    const { plan } = this;
    return {
      memoryBudgetBytes: this.memory.budgetBytes,
      vramBudgetBytes: this.options.vram?.budgetBytes ?? 0,
      heldBytes: plan.heldBytes,
      ...this.heldByTier(),
      streamedBytes: plan.streamedBytes,
      ringBytes: plan.ringBytes,
      slotBytes: plan.slotBytes,
      kvBytes: plan.kvBytes,
      kvSpilledBytes: plan.kvSpilledBytes,
      activationBytes: plan.activationBytes,
      runtimeBytes: this.residencyInput.runtimeBytes,
      minimumBytes: plan.minimumBytes,
      minimumVramBytes: plan.minimumVramBytes,
      maxSeqLen: plan.maxSeqLen,
      placementReason: this.placementReason,
      stages: this.residencyInput.stages.map((stage, index) => this.residencyEntry(stage, index)),
    };
  }

  private heldByTier({ heldBytes, deviceHeldBytes }: { heldBytes: number; deviceHeldBytes: number } = this.plan) {
    const onDevice = this.options.vram ? deviceHeldBytes : 0;
    return { deviceHeldBytes: onDevice, hostHeldBytes: heldBytes - onDevice };
  }

  private residencyEntry(stage: ResidencyStage, index: number): ResidencyEntry {
    const held = this.plan.held[index] as Uint8Array;
    const { heldBytes, streamedBytes, ...parts } = stageParts(stage, held);
    const otherwise = stage.gathered ? "gathered" : stage.routed ? "routed" : "streamed";
    return {
      stage: this.description.stages[index]?.name ?? "",
      tier: streamedBytes === 0 ? "held" : heldBytes > 0 ? "mixed" : otherwise,
      bytes: stage.bytes,
      heldBytes,
      ...this.heldByTier({ heldBytes, ...parts }),
      streamedBytes: stage.gathered ? 0 : streamedBytes,
      placement: this.residencyInput.onProcessor?.[index] ? "cpu" : "device",
    };
  }

  profile(): Profile {
    this.checkProfiling();
    return readProfile(
      this.model,
      this.architecture.kinds.map((kind) => kind.name),
    );
  }

  async writeTrace(file: string): Promise<{ spans: number; dropped: number }> {
    this.checkProfiling();
    return writeTrace(
      this.model,
      file,
      this.description.stages.map((stage) => stage.name),
    );
  }

  /** Tells the trace, if there is one, what JavaScript does from now on. */
  mark(activity: TraceActivity): void {
    this.passes.mark(activity);
  }

  private checkProfiling(): void {
    this.checkAlive();
    if (this.options.profiling) return;
    throw new LayerstreamError("INVALID_ARGUMENT", "The model was loaded without profilingMode.", {
      remedy: "Load it with profilingMode: true.",
    });
  }

  checkAlive(): void {
    this.passes.checkAlive();
  }

  dispose(): Promise<void> {
    this.disposal ??= this.close();
    return this.disposal;
  }

  private async close(): Promise<void> {
    this.kvCache.close(disposedError(this.store.path));
    await this.passes.close();
    await this.prefetcher.close();
    this.finalStats = native().modelStats(this.model);
    native().destroyModel(this.model);
    forgetAtExit(this.model);
  }
}

/** What was read through the page cache to get here: charged to a cgroup as long as it stays there. */
function dropFileCaches(store: LayerStore): void {
  if (cgroupLimitBytes() === undefined) return;
  const read = store.manifest.files.filter(({ stages }) => stages.length === 0).map(({ name }) => name);
  for (const name of [MANIFEST_FILE, ...read]) native().dropFileCache(store.filePath(name));
  native().dropFileCache(process.execPath);
}
