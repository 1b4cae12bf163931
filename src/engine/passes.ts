/** Passes of one model: one at a time, in the order of asking, with the memory that each of them needs. */
import { resolve } from "node:path";
import { LayerstreamError } from "../errors.js";
import type { RopeSpec } from "../models/architecture.js";
import { type RopeFrequencies, ropeFrequencies } from "../models/rope.js";
import { native } from "../native/binding.js";
import { TRACE_ENGINE, TRACE_PASS, type TraceActivity } from "../native/types.js";
import { untilAborted } from "./abort.js";
import type { KvCache, Sequence } from "./kv-cache.js";
import type { Prefetcher } from "./prefetch.js";
import type { ResidencyPlan } from "./residency-sizes.js";
import { Turns } from "./turns.js";
import type { MemoryChange, WorkingMemoryPlanner } from "./working-memory.js";

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

/** What passes are made of. */
export interface PassParts {
  /** In the addon. */
  model: number;
  /** Path of the layer store, for errors. */
  store: string;
  vocabSize: number;
  ropeSpecs: readonly RopeSpec[];
  /** Of each table; undefined if it depends on the length of the sequence. */
  ropes: readonly (RopeFrequencies | undefined)[];
  memory: WorkingMemoryPlanner;
  kvCache: KvCache;
  prefetcher: Prefetcher;
  profiling: boolean;
}

export class Passes {
  readonly totals = { passes: 0, promptTokens: 0, prefillSeconds: 0, decodeSeconds: 0 };
  private readonly turns = new Turns();
  /** Of the latest call of runPass. */
  private latestPass: Promise<number | undefined> = Promise.resolve(undefined);
  private ahead: PassAhead | undefined;
  /** The addon has them, and they do not change. */
  private ropesKnown = false;
  private disposed = false;

  constructor(private readonly parts: PassParts) {}

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
      const rows = allLogits ? logits.subarray(first * this.parts.vocabSize) : logits;
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

  private get plan(): ResidencyPlan {
    return this.parts.memory.plan;
  }

  /** Tells the trace, if there is one, what JavaScript does from now on. */
  mark(activity: TraceActivity): void {
    if (this.parts.profiling && !this.disposed) native().traceActivity(this.parts.model, activity);
  }

  checkAlive(): void {
    if (this.disposed) throw disposedError(this.parts.store);
  }

  /** Aborts what runs. From now on everything fails with MODEL_DISPOSED. */
  async close(): Promise<void> {
    this.disposed = true;
    native().cancelModel(this.parts.model);
    await this.turns.take(async () => {});
  }

  /** A change of memory at its turn between passes, which leaves the tape as after a pass. */
  changeMemory(find: () => MemoryChange | undefined): Promise<void> {
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
      await this.rearrange(this.parts.memory.beforePass(sequence, rest.length));
      signal?.throwIfAborted();
    } catch (error) {
      // The pass before left the tape to this one.
      this.pauseTape();
      throw error;
    }
    const tokens = rest.slice(0, this.plan.working.tokens);
    const last = tokens.length === rest.length;
    const addon = native();
    const cancel = () => addon.cancelModel(this.parts.model);
    signal?.addEventListener("abort", cancel, { once: true });
    addon.setTapeIdle(this.parts.model, false);
    this.parts.prefetcher.start(this.parts.model, cancel);
    this.mark(TRACE_PASS);
    let chosen: number | undefined;
    try {
      chosen = await this.settle(() => {
        const running = addon.runPass(this.parts.model, {
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
        this.ropesKnown = !this.parts.ropes.includes(undefined);
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
      this.ropesKnown && streamedBytes + kvSpilledBytes === 0 && this.parts.kvCache.covers(sequence, length + 1);
    const alone = this.turns.waiting === 0 && this.parts.kvCache.activeSequences === 1;
    if (!possible || !alone || this.disposed) return;
    const before = this.turns.latest;
    const running = native().runPass(this.parts.model, {
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
    const cancel = () => native().cancelModel(this.parts.model);
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
      if (this.disposed) throw disposedError(this.parts.store);
      signal?.throwIfAborted();
      throw death === undefined ? asLayerstreamError(error) : readerError(this.parts.store, death);
    }
  }

  /** Memory goes from weights to passes, or back. What gives back comes first. The tape starts again. */
  private async rearrange(change: MemoryChange | undefined): Promise<void> {
    if (!change) return;
    const addon = native();
    const { held, ringBytes, expertRingBytes, slotBytes, deviceHeldBytes, working, kvLayers } = change.plan;
    const changes = [
      () => addon.setHeld(this.parts.model, held, ringBytes, expertRingBytes, slotBytes),
      () => addon.setWorkingMemory(this.parts.model, working.tokens, change.pages, kvLayers),
    ];
    // Beside a device with memory of its own, layers of the cache that it gives back take the host's, and weights make room first.
    const cacheGivesBack = kvLayers < this.plan.kvLayers && change.plan.deviceFixedBytes === 0;
    if (deviceHeldBytes > this.plan.deviceHeldBytes || cacheGivesBack) changes.reverse();
    // What is enqueued behind a pass does not move the tape, which this starts anew.
    this.latestPass = Promise.resolve(undefined);
    addon.cancelModel(this.parts.model);
    await this.parts.prefetcher.settled();
    this.checkAlive();
    try {
      for (const apply of changes) apply();
      this.parts.memory.adopt(change);
    } catch (error) {
      throw asLayerstreamError(error);
    } finally {
      addon.resetTape(this.parts.model);
    }
  }

  /** Unless another pass follows, reads go on until the ring is full and then stop. */
  private pauseTape(): void {
    if (this.turns.waiting > 0 || this.disposed) return;
    this.parts.prefetcher.idle();
    native().setTapeIdle(this.parts.model, true);
  }

  /** Undefined where the addon has them already. */
  private ropesFor(sequenceLength: number): RopeFrequencies[] | undefined {
    if (this.ropesKnown) return undefined;
    return this.parts.ropes.map((table, index) => table ?? this.stretchedRope(index, sequenceLength));
  }

  private stretchedRope(index: number, sequenceLength: number): RopeFrequencies {
    const rope = this.parts.ropeSpecs[index];
    if (!rope) throw new LayerstreamError("INTERNAL", "A rope table is missing.");
    return ropeFrequencies(rope, sequenceLength);
  }

  /**
   * After a pass that failed or was aborted: the tape starts again from the first stage. Returns why its reader died, if
   * it did.
   */
  private async recover(): Promise<unknown> {
    native().cancelModel(this.parts.model);
    await this.latestPass.catch(() => {});
    const death = await this.parts.prefetcher.settled();
    if (!this.disposed) native().resetTape(this.parts.model);
    return death;
  }
}

function readerError(store: string, cause: unknown): LayerstreamError {
  return new LayerstreamError("IO_ERROR", `The thread that reads ${resolve(store)} has died.`, {
    remedy: "The next call starts another.",
    cause,
  });
}

export function disposedError(store: string): LayerstreamError {
  return new LayerstreamError("MODEL_DISPOSED", `The model of ${resolve(store)} has been disposed.`, {
    remedy: "Load it again with AutoModel.fromPretrained.",
  });
}

/** Errors of the addon carry a code already; this gives them their class. */
function asLayerstreamError(error: unknown): unknown {
  if (error instanceof LayerstreamError || !(error instanceof Error) || !("code" in error)) return error;
  return new LayerstreamError(error.code as LayerstreamError["code"], error.message, { cause: error });
}
