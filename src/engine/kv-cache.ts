/**
 * Pages of the KV cache and who holds them. A sequence reserves pages for all that it may become before it starts, so
 * that it never fails half-way; when too few are free it waits for others to end. Finished sequences keep their pages
 * until someone needs them: a prompt that begins with the same tokens continues from there.
 */
import { LayerstreamError } from "../errors.js";

/** Shorter common prefixes are not worth keeping. */
const REUSE_TOKENS_MIN = 8;

/** Tokens whose keys and values are in the cache, and the pages that hold them. */
export interface Sequence {
  tokens: number[];
  pages: Uint32Array;
}

interface Waiter {
  prompt: readonly number[];
  capacity: number;
  resolve: (sequence: Sequence) => void;
  reject: (error: unknown) => void;
}

export class KvCache {
  private readonly free: number[];
  /** Finished sequences, least recently used first. */
  private finished: Sequence[] = [];
  private waiters: Waiter[] = [];

  /** `reuse`: whether keys stay valid when a sequence is continued (not so if rotation depends on its length). */
  constructor(
    readonly pageCount: number,
    readonly pagePositions: number,
    private readonly reuse: boolean,
  ) {
    this.free = Array.from({ length: pageCount }, (_, page) => pageCount - 1 - page);
  }

  /**
   * A sequence with room for `capacity` tokens, holding as much of the start of `prompt` as an earlier one left, but
   * at least one token less than all of it. Waits its turn while others hold the pages.
   */
  acquire(prompt: readonly number[], capacity: number, signal?: AbortSignal): Promise<Sequence> {
    if (Math.ceil(capacity / this.pagePositions) > this.pageCount) {
      throw new LayerstreamError("PROMPT_TOO_LONG", `${capacity} tokens do not fit in the KV cache.`);
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = { prompt, capacity, resolve, reject };
      const abort = () => {
        this.waiters = this.waiters.filter((other) => other !== waiter);
        reject(signal?.reason);
      };
      waiter.resolve = (sequence) => {
        signal?.removeEventListener("abort", abort);
        resolve(sequence);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.waiters.push(waiter);
      this.serve();
    });
  }

  /** Gives the sequence's pages back; with `keep`, it may be continued later. */
  release(sequence: Sequence, keep: boolean): void {
    if (keep && this.reuse && sequence.tokens.length >= REUSE_TOKENS_MIN) {
      const used = Math.ceil(sequence.tokens.length / this.pagePositions);
      this.free.push(...sequence.pages.subarray(used));
      sequence.pages = sequence.pages.slice(0, used);
      this.finished.push(sequence);
    } else {
      this.free.push(...sequence.pages);
    }
    this.serve();
  }

  /** Fails everyone who waits. */
  close(error: unknown): void {
    for (const waiter of this.waiters.splice(0)) waiter.reject(error);
  }

  private serve(): void {
    for (let waiter = this.waiters[0]; waiter !== undefined; waiter = this.waiters[0]) {
      const sequence = this.tryAcquire(waiter.prompt, waiter.capacity);
      if (!sequence) return;
      this.waiters.shift();
      waiter.resolve(sequence);
    }
  }

  private tryAcquire(prompt: readonly number[], capacity: number): Sequence | undefined {
    const needed = Math.ceil(capacity / this.pagePositions);
    const reclaimable = this.finished.reduce((pages, sequence) => pages + sequence.pages.length, 0);
    if (needed > this.free.length + reclaimable) return undefined;

    const found = this.longestPrefix(prompt);
    const start: Sequence = found?.sequence ?? { tokens: [], pages: new Uint32Array() };
    if (found) this.finished = this.finished.filter((other) => other !== found.sequence);
    const kept = Math.min(Math.ceil((found?.length ?? 0) / this.pagePositions), needed);
    this.free.push(...start.pages.subarray(kept));
    while (this.free.length < needed - kept) this.free.push(...(this.finished.shift() as Sequence).pages);
    const pages = new Uint32Array(needed);
    pages.set(start.pages.subarray(0, kept));
    for (let index = kept; index < needed; index++) pages[index] = this.free.pop() as number;
    return { tokens: start.tokens.slice(0, found?.length ?? 0), pages };
  }

  private longestPrefix(prompt: readonly number[]): { sequence: Sequence; length: number } | undefined {
    let best: { sequence: Sequence; length: number } | undefined;
    for (const sequence of this.finished) {
      const limit = Math.min(sequence.tokens.length, prompt.length - 1);
      let length = 0;
      while (length < limit && sequence.tokens[length] === prompt[length]) length++;
      if (length >= REUSE_TOKENS_MIN && length > (best?.length ?? 0)) best = { sequence, length };
    }
    return best;
  }
}
