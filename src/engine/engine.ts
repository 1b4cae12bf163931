/** One loaded model: its memory, its tape, and passes, one at a time. */
import { resolve } from "node:path";
import type { LayerStore } from "../checkpoint/layer-store.js";
import { MANIFEST_FILE } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import type { Architecture } from "../models/architecture.js";
import { dependsOnLength, type RopeFrequencies, ropeFrequencies } from "../models/rope.js";
import { native } from "../native/binding.js";
import { type NativeModelStats, TRACE_ENGINE, TRACE_PASS, type TraceActivity } from "../native/types.js";
import { untilAborted } from "./abort.js";
import { carriesNormed } from "./activations.js";
import type { Residency, ResidencyEntry, Stats } from "./contract.js";
import { cancelAtExit, forgetAtExit } from "./exit.js";
import { type ResidencyStage, stageParts } from "./held-chunks.js";
import { KvCache, type Sequence } from "./kv-cache.js";
import { cgroupLimitBytes, peakResidentBytes } from "./memory.js";
import { describeModel, type ModelDescription } from "./model-description.js";
import { Prefetcher } from "./prefetch.js";
import { type Profile, readProfile } from "./profile.js";
import { PAGE_POSITIONS, planResidency, type ResidencyInput, type ResidencyPlan } from "./residency.js";
import { type EngineOptions, residencyInputOf } from "./residency-input.js";
import { TRACE_SPANS, writeTrace } from "./trace-file.js";
import { Turns } from "./turns.js";
import { type MemoryChange, reservedSizes, WorkingMemoryPlanner } from "./working-memory.js";

/** What of a request its passes have in common. */
export interface RunOptions {
  /** Logits of all tokens instead of the last. */
  allLogits?: boolean;
  /** The tokens are a prompt or what is new of one, even if it is a single token. */
  prompt: boolean;
  /** Choose the token that follows greedily. */
  choose?: boolean;
  /** With `choose`: another token is wanted after that one, unless it is one of these. */
  ends?: Uint32Array;
  signal?: AbortSignal;
}

/** A pass that was enqueued behind another of its sequence before that one's choice, its input, was known. */
interface PassAhead {
  sequence: Sequence;
  running: Promise<number | undefined>;
  /** Its choice, once the engine is done with it; undefined if it did not run. */
  result: Promise<number | undefined>;
}

export class Engine {
  readonly kvCache: KvCache;
  private readonly memory: WorkingMemoryPlanner;
  private readonly model: number;
  private readonly ropes: (RopeFrequencies | undefined)[];
  /** The device has them, and they do not change. */
  private ropesKnown = false;
  private readonly turns = new Turns();
  /** Of the latest call of runPass. */
  private latestPass: Promise<number | undefined> = Promise.resolve(undefined);
  private ahead: PassAhead | undefined;
  private finalStats: NativeModelStats | undefined;
  private disposed = false;
  private disposal: Promise<void> | undefined;
  private readonly totals = {
    passes: 0,
    promptTokens: 0,
    generatedTokens: 0,
    prefillSeconds: 0,
    decodeSeconds: 0,
  };

  private constructor(
    readonly store: LayerStore,
    readonly architecture: Architecture,
    private readonly description: ModelDescription,
    private readonly options: EngineOptions,
    private readonly residencyInput: ResidencyInput,
    private readonly prefetcher: Prefetcher,
  ) {
    this.ropes = architecture.ropes.map((rope) => (dependsOnLength(rope) ? undefined : ropeFrequencies(rope, 1)));
    const plan = planResidency(residencyInput);
    const reserved = reservedSizes(residencyInput, plan);
    this.kvCache = new KvCache(reserved.pages, PAGE_POSITIONS, !this.ropes.includes(undefined));
    this.memory = new WorkingMemoryPlanner(residencyInput, plan, this.kvCache);
    const stages = description.stages.map(({ native: stage }, index) => ({ ...stage, heldChunks: plan.held[index] }));
    this.model = native().createModel({
      device: options.device,
      threads: options.threads,
      precision: options.precision,
      files: description.files,
      plans: description.plans,
      stages,
      embedding: description.embedding,
      registers: { ...architecture.registers },
      ropeDims: architecture.ropes.map((rope) => rope.rotaryDim),
      chunkBytes: plan.chunkBytes,
      ringBytes: plan.ringBytes,
      readAhead: options.prefetching ?? true,
      expertRingBytes: plan.expertRingBytes,
      maxTokens: reserved.tokens,
      blockTokens: residencyInput.activations.blockTokens,
      normedCarried: carriesNormed(architecture),
      vocabSize: architecture.vocabSize,
      kvLayers: architecture.layerCount,
      kvHeads: architecture.kvCache.heads,
      keyDim: architecture.kvCache.keyDim,
      valueDim: architecture.kvCache.valueDim,
      pageCount: reserved.pages,
      pagePositions: PAGE_POSITIONS,
      traceSpans: options.profiling ? TRACE_SPANS : 0,
      kvFormat: options.kvFormat,
      spillDirectory: residencyInput.kvSpill ? options.spillDirectory : undefined,
    });
    const pages = new Uint8Array(reserved.pages).fill(1, 0, plan.working.pages);
    native().setWorkingMemory(this.model, plan.working.tokens, pages, plan.kvLayers);
    this.kvCache.setCommitted(pages);
    cancelAtExit(this.model);
  }

  /** @throws MEMORY_BUDGET_TOO_SMALL, STORE_INVALID, DEVICE_UNAVAILABLE, IO_ERROR */
  static async open(store: LayerStore, architecture: Architecture, options: EngineOptions): Promise<Engine> {
    const description = describeModel(architecture, store, options.adapters);
    const prefetcher = new Prefetcher();
    try {
      await prefetcher.warmUp();
      dropFileCaches(store);
      const input = residencyInputOf(architecture, description, options);
      return new Engine(store, architecture, description, options, input, prefetcher);
    } catch (error) {
      await prefetcher.close();
      throw error;
    }
  }

  /**
   * Runs tokens that follow what `sequence` holds, in as few passes as their number allows, and appends them to it. After an
   * abort the sequence is of no more use: the pass that was running may still write its pages, before any other does.
   *
   * @param logits [vocab] for the last token, or [tokens, vocab] with `allLogits`
   * @returns the token chosen, the lowest of several with the greatest logit; -1 without `choose`, or if `logits` hold NaN or
   * no greatest finite number
   */
  async run(sequence: Sequence, tokens: readonly number[], logits: Float32Array, options: RunOptions): Promise<number> {
    const { allLogits = false, signal } = options;
    signal?.throwIfAborted();
    const ahead = await this.passAhead(sequence, tokens, logits, options);
    if (ahead !== undefined) return ahead;
    const started = performance.now();
    const end = sequence.tokens.length + tokens.length;
    let chosen = -1;
    for (let first = 0; first < tokens.length; ) {
      const rest = tokens.slice(first);
      const rows = allLogits ? logits.subarray(first * this.architecture.vocabSize) : logits;
      signal?.throwIfAborted();
      const pass = this.turns.take(() => this.pass(sequence, rest, end, rows, tokens.length, options));
      chosen = await untilAborted(pass, signal);
      first = tokens.length - (end - sequence.tokens.length);
    }
    const seconds = (performance.now() - started) / 1000;
    if (tokens.length > 1) {
      this.totals.promptTokens += tokens.length;
      this.totals.prefillSeconds += seconds;
    } else {
      this.totals.decodeSeconds += seconds;
    }
    return chosen;
  }

  get plan(): ResidencyPlan {
    return this.memory.plan;
  }

  countGenerated(): void {
    this.totals.generatedTokens++;
  }

  /** Decides anew what is held, so that logits of so many tokens fit. @throws MEMORY_BUDGET_TOO_SMALL */
  async reserveLogits(tokens: number): Promise<void> {
    await this.changeMemory(() => this.memory.beforeLogits(tokens));
  }

  /**
   * Keeps a new budget from now on. What is held beyond it has been given back when this resolves.
   * @throws MEMORY_BUDGET_TOO_SMALL, the old budget still in force
   */
  async setBudget(budgetBytes: number): Promise<void> {
    await this.changeMemory(() => this.memory.forBudget(budgetBytes));
  }

  stats(): Stats {
    const measured = this.disposed ? this.finalStats : native().modelStats(this.model);
    return {
      ...this.totals,
      ioWaitSeconds: measured?.waitSeconds ?? 0,
      computeSeconds: measured?.computeSeconds ?? 0,
      bytesMultiplied: measured?.bytesMultiplied ?? 0,
      bytesStreamed: measured?.bytesRead ?? 0,
      readSeconds: measured?.readSeconds ?? 0,
      readCpuSeconds: measured?.readCpuSeconds ?? 0,
      bytesPerPass: this.plan.streamedBytes,
      heldBytes: this.plan.heldBytes,
      weightBytes: this.description.stages.reduce((bytes, stage) => bytes + stage.extentBytes, 0),
      ringBytes: this.plan.ringBytes,
      kvBytes: this.plan.kvBytes,
      kvSpilledBytes: this.plan.kvSpilledBytes,
      kvBytesRead: measured?.kvBytesRead ?? 0,
      kvReadSeconds: measured?.kvReadSeconds ?? 0,
      kvBytesWritten: measured?.kvBytesWritten ?? 0,
      kvWriteSeconds: measured?.kvWriteSeconds ?? 0,
      kvDtype: this.options.kvFormat,
      activationBytes: this.plan.activationBytes,
      memoryBudgetBytes: this.memory.budgetBytes,
      peakMemoryBytes: peakResidentBytes(),
      threads: this.options.threads,
      kernels: measured?.kernels ?? "",
      reader: measured?.reader ?? "",
      readerReason: measured?.readerReason || undefined,
      readMode: measured?.bufferedReason ? "buffered" : "direct",
      readModeReason: measured?.bufferedReason || undefined,
    };
  }

  residency(): Residency {
    const { plan } = this;
    return {
      memoryBudgetBytes: this.memory.budgetBytes,
      heldBytes: plan.heldBytes,
      streamedBytes: plan.streamedBytes,
      ringBytes: plan.ringBytes,
      kvBytes: plan.kvBytes,
      activationBytes: plan.activationBytes,
      runtimeBytes: this.residencyInput.runtimeBytes,
      minimumBytes: plan.minimumBytes,
      maxSeqLen: plan.maxSeqLen,
      stages: this.residencyInput.stages.map((stage, index) => this.residencyEntry(stage, index)),
    };
  }

  private residencyEntry(stage: ResidencyStage, index: number): ResidencyEntry {
    const held = this.plan.held[index] as Uint8Array;
    const { heldBytes, streamedBytes } = stageParts(stage, held);
    const otherwise = stage.gathered ? "gathered" : stage.routed ? "routed" : "streamed";
    return {
      stage: this.description.stages[index]?.name ?? "",
      tier: streamedBytes === 0 ? "held" : heldBytes > 0 ? "mixed" : otherwise,
      bytes: stage.bytes,
      heldBytes,
      streamedBytes: stage.gathered ? 0 : streamedBytes,
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
    if (this.options.profiling && !this.disposed) native().traceActivity(this.model, activity);
  }

  private checkProfiling(): void {
    this.checkAlive();
    if (this.options.profiling) return;
    throw new LayerstreamError("INVALID_ARGUMENT", "The model was loaded without profilingMode.", {
      remedy: "Load it with profilingMode: true.",
    });
  }

  checkAlive(): void {
    if (this.disposed) throw disposedError(this.store.path);
  }

  dispose(): Promise<void> {
    this.disposal ??= this.close();
    return this.disposal;
  }

  private async close(): Promise<void> {
    this.disposed = true;
    this.kvCache.close(disposedError(this.store.path));
    native().cancelModel(this.model);
    await this.turns.take(async () => {});
    await this.prefetcher.close();
    this.finalStats = native().modelStats(this.model);
    native().destroyModel(this.model);
    forgetAtExit(this.model);
  }

  /** A change of memory at its turn between passes, which leaves the tape as after a pass. */
  private changeMemory(find: () => MemoryChange | undefined): Promise<void> {
    return this.turns.take(async () => {
      try {
        this.checkAlive();
        await this.rearrange(find());
      } finally {
        this.pauseTape();
      }
    });
  }

  /** Runs as many of the tokens as one pass may carry and appends them to the sequence. Returns what it chose. */
  private async pass(
    sequence: Sequence,
    rest: readonly number[],
    sequenceLength: number,
    rows: Float32Array,
    requestTokens: number,
    { allLogits = false, prompt, choose, ends, signal }: RunOptions,
  ): Promise<number> {
    try {
      this.checkAlive();
      signal?.throwIfAborted();
      await this.rearrange(this.memory.beforePass(sequence, rest.length));
      signal?.throwIfAborted();
    } catch (error) {
      // The pass before left the tape to this one.
      this.pauseTape();
      throw error;
    }
    const tokens = rest.slice(0, this.plan.working.tokens);
    const last = tokens.length === rest.length;
    const addon = native();
    const cancel = () => addon.cancelModel(this.model);
    signal?.addEventListener("abort", cancel, { once: true });
    addon.setTapeIdle(this.model, false);
    this.prefetcher.start(this.model, cancel);
    this.mark(TRACE_PASS);
    let chosen: number | undefined;
    try {
      chosen = await this.settle(() => {
        const running = addon.runPass(this.model, {
          tokens: Uint32Array.from(tokens),
          segments: [{ tokens: tokens.length, firstPosition: sequence.tokens.length, pages: sequence.pages }],
          ropes: this.ropesFor(sequenceLength),
          prompt,
          requestTokens,
          allLogits,
          logits: allLogits || last ? rows : undefined,
          choose,
        });
        this.latestPass = running;
        if (last && ends) this.enqueueAhead(sequence, sequenceLength, rows, ends, signal);
        return running;
      }, signal);
    } finally {
      this.mark(TRACE_ENGINE);
      signal?.removeEventListener("abort", cancel);
      this.pauseTape();
    }
    sequence.tokens.push(...tokens);
    return chosen ?? -1;
  }

  /**
   * Where everything is held, the pass of a token may be enqueued before the token is known, behind the one that chooses it:
   * the device goes on at once, and JavaScript does its part meanwhile. `length`: tokens of the sequence until then.
   */
  private enqueueAhead(
    sequence: Sequence,
    length: number,
    logits: Float32Array,
    ends: Uint32Array,
    signal: AbortSignal | undefined,
  ): void {
    const { streamedBytes, kvSpilledBytes } = this.plan;
    const possible =
      this.ropesKnown && streamedBytes + kvSpilledBytes === 0 && this.kvCache.covers(sequence, length + 1);
    const alone = this.turns.waiting === 0 && this.kvCache.activeSequences === 1;
    if (!possible || !alone || this.disposed) return;
    const before = this.turns.latest;
    const running = native().runPass(this.model, {
      ends,
      segments: [{ tokens: 1, firstPosition: length, pages: sequence.pages }],
      prompt: false,
      requestTokens: 1,
      allLogits: false,
      logits,
      choose: true,
    });
    const result = this.turns.append(this.settleAhead(before, running, signal));
    this.latestPass = running;
    this.ahead = { sequence, running, result };
  }

  private async settleAhead(
    before: Promise<unknown>,
    running: Promise<number | undefined>,
    signal: AbortSignal | undefined,
  ): Promise<number | undefined> {
    running.catch(() => {});
    await before.catch(() => {});
    const started = performance.now();
    const chosen = await this.settle(() => running, signal);
    if (chosen !== undefined) this.totals.decodeSeconds += (performance.now() - started) / 1000;
    return chosen;
  }

  /** What the pass of `tokens` chose that was enqueued ahead; undefined if there is none. */
  private async passAhead(
    sequence: Sequence,
    tokens: readonly number[],
    logits: Float32Array,
    { ends, signal }: RunOptions,
  ): Promise<number | undefined> {
    const { ahead } = this;
    if (ahead?.sequence !== sequence || tokens.length !== 1) return undefined;
    this.ahead = undefined;
    if (ends && this.latestPass === ahead.running) {
      this.enqueueAhead(sequence, sequence.tokens.length + 1, logits, ends, signal);
    }
    const cancel = () => native().cancelModel(this.model);
    signal?.addEventListener("abort", cancel, { once: true });
    this.mark(TRACE_PASS);
    try {
      const chosen = await untilAborted(ahead.result, signal);
      if (chosen !== undefined) sequence.tokens.push(...tokens);
      return chosen;
    } finally {
      this.mark(TRACE_ENGINE);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** What a pass came to, once another can run. */
  private async settle(
    start: () => Promise<number | undefined>,
    signal: AbortSignal | undefined,
  ): Promise<number | undefined> {
    try {
      const chosen = await start();
      if (chosen !== undefined) this.totals.passes++;
      // An abort that arrived with the last op has cancelled the tape although the pass is complete.
      if (signal?.aborted) await this.recover();
      return chosen;
    } catch (error) {
      const death = await this.recover();
      if (this.disposed) throw disposedError(this.store.path);
      signal?.throwIfAborted();
      throw death === undefined ? asLayerstreamError(error) : readerError(this.store.path, death);
    }
  }

  /** Memory goes from weights to passes, or back. What gives back comes first. The tape starts again. */
  private async rearrange(change: MemoryChange | undefined): Promise<void> {
    if (!change) return;
    const addon = native();
    const { held, ringBytes, expertRingBytes, heldBytes, working, kvLayers } = change.plan;
    const changes = [
      () => addon.setHeld(this.model, held, ringBytes, expertRingBytes),
      () => addon.setWorkingMemory(this.model, working.tokens, change.pages, kvLayers),
    ];
    if (heldBytes > this.plan.heldBytes || kvLayers < this.plan.kvLayers) changes.reverse();
    // What is enqueued behind a pass does not move the tape, which this starts anew.
    this.latestPass = Promise.resolve(undefined);
    addon.cancelModel(this.model);
    await this.prefetcher.settled();
    this.checkAlive();
    try {
      for (const apply of changes) apply();
      this.memory.adopt(change);
    } catch (error) {
      throw asLayerstreamError(error);
    } finally {
      addon.resetTape(this.model);
    }
  }

  /** Unless another pass follows, reads go on until the ring is full and then stop. */
  private pauseTape(): void {
    if (this.turns.waiting > 0 || this.disposed) return;
    this.prefetcher.idle();
    native().setTapeIdle(this.model, true);
  }

  /** What the device does not know yet. */
  private ropesFor(sequenceLength: number): RopeFrequencies[] | undefined {
    if (this.ropesKnown) return undefined;
    this.ropesKnown = !this.ropes.includes(undefined);
    return this.ropes.map((table, index) => table ?? this.stretchedRope(index, sequenceLength));
  }

  private stretchedRope(index: number, sequenceLength: number): RopeFrequencies {
    const rope = this.architecture.ropes[index];
    if (!rope) throw new LayerstreamError("INTERNAL", "A rope table is missing.");
    return ropeFrequencies(rope, sequenceLength);
  }

  /**
   * After a pass that failed or was aborted: the tape starts again from the first stage. Returns why its reader died, if
   * it did.
   */
  private async recover(): Promise<unknown> {
    native().cancelModel(this.model);
    await this.latestPass.catch(() => {});
    const death = await this.prefetcher.settled();
    if (!this.disposed) native().resetTape(this.model);
    return death;
  }
}

function readerError(store: string, cause: unknown): LayerstreamError {
  return new LayerstreamError("IO_ERROR", `The thread that reads ${resolve(store)} has died.`, {
    remedy: "The next call starts another.",
    cause,
  });
}

/** What was read through the page cache to get here: charged to a cgroup as long as it stays there. */
function dropFileCaches(store: LayerStore): void {
  if (cgroupLimitBytes() === undefined) return;
  const read = store.manifest.files.filter(({ stages }) => stages.length === 0).map(({ name }) => name);
  for (const name of [MANIFEST_FILE, ...read]) native().dropFileCache(store.filePath(name));
  native().dropFileCache(process.execPath);
}

function disposedError(store: string): LayerstreamError {
  return new LayerstreamError("MODEL_DISPOSED", `The model of ${resolve(store)} has been disposed.`, {
    remedy: "Load it again with AutoModel.fromPretrained.",
  });
}

/** Errors of the addon carry a code already; this gives them their class. */
function asLayerstreamError(error: unknown): unknown {
  if (error instanceof LayerstreamError || !(error instanceof Error) || !("code" in error)) return error;
  return new LayerstreamError(error.code as LayerstreamError["code"], error.message, { cause: error });
}
