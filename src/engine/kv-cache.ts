/**
 * Pages of the KV cache and who holds them. A sequence reserves pages for all that it may become before it starts, so
 * that it never fails half-way; when too few are free it waits for others to end. Finished sequences keep their pages
 * until someone needs them: a prompt that begins with the same tokens continues from there.
 *
 * Pages cost memory once they are committed, which the engine does when a pass is about to write them.
 */
import { LayerstreamError } from "../errors.js";

/** Shorter common prefixes are not worth keeping. */
const REUSE_TOKENS_MIN = 8;

/** Tokens whose keys and values are in the cache, and the pages that hold them. */
export interface Sequence {
  tokens: number[];
  /** Tokens that it may come to have. */
  capacity: number;
  pages: Uint32Array;
}

interface Waiter {
  prompt: readonly number[];
  capacity: number;
  resolve: (sequence: Sequence) => void;
  reject: (error: unknown) => void;
}

export class KvCache {
  /** 1: the page belongs to a sequence. */
  private readonly owned: Uint8Array;
  private ownedCount = 0;
  private committed: Uint8Array;
  private readonly active = new Set<Sequence>();
  /** Finished sequences, least recently used first. */
  private finished: Sequence[] = [];
  private waiters: Waiter[] = [];
  private limit: number;
  private keep: number;

  /** `reuse`: whether keys stay valid when a sequence is continued (not so if rotation depends on its length). */
  constructor(
    reservedPages: number,
    readonly pagePositions: number,
    private readonly reuse: boolean,
  ) {
    this.owned = new Uint8Array(reservedPages);
    this.committed = new Uint8Array(reservedPages);
    this.limit = this.keep = reservedPages;
  }

  /**
   * How many pages sequences may have together, and up to how many finished ones keep theirs when new ones come: they are
   * worth less than what else the memory could hold.
   */
  setLimits(pages: number, keptPages: number): void {
    this.limit = Math.min(pages, this.owned.length);
    this.keep = keptPages;
    this.serve();
  }

  /** Sequences that have not ended. */
  get activeSequences(): number {
    return this.active.size;
  }

  /** Whether all pages that hold the first `length` tokens of the sequence are committed. */
  covers(sequence: Sequence, length: number): boolean {
    const { pages } = sequence;
    const count = this.pagesOf(length);
    if (count > pages.length) return false;
    for (let index = 0; index < count; index++) {
      if (this.committed[pages[index] as number] !== 1) return false;
    }
    return true;
  }

  /** A flag for each page that holds tokens, or will when `sequence` has `length` of them. */
  pagesInUse(sequence?: Sequence, length = 0): Uint8Array {
    const flags = new Uint8Array(this.owned.length);
    const mark = ({ pages }: Sequence, tokens: number) => {
      for (const page of pages.subarray(0, this.pagesOf(tokens))) flags[page] = 1;
    };
    for (const other of [...this.active, ...this.finished]) mark(other, other.tokens.length);
    if (sequence) mark(sequence, length);
    return flags;
  }

  /** A flag for each page of a sequence that has not ended, tokens or not. */
  pagesOfActive(): Uint8Array {
    const flags = new Uint8Array(this.owned.length);
    for (const { pages } of this.active) for (const page of pages) flags[page] = 1;
    return flags;
  }

  isCommitted(pages: Uint8Array): boolean {
    return pages.every((flag, page) => flag === 0 || this.committed[page] === 1);
  }

  /** What the engine has committed; everything else has lost its content. */
  setCommitted(pages: Uint8Array): void {
    this.committed = pages;
  }

  /** Forgets what finished sequences left. Returns whether there was anything. */
  dropFinished(): boolean {
    const dropped = this.finished.splice(0);
    for (const { pages } of dropped) this.giveBack(pages);
    return dropped.length > 0;
  }

  /**
   * A sequence with room for `capacity` tokens, holding as much of the start of `prompt` as an earlier one left, but
   * at least one token less than all of it. Waits its turn while others hold the pages.
   */
  acquire(prompt: readonly number[], capacity: number, signal?: AbortSignal): Promise<Sequence> {
    if (this.pagesOf(capacity) > this.limit) {
      throw new LayerstreamError("PROMPT_TOO_LONG", `${capacity} tokens do not fit in the KV cache.`);
    }
    signal?.throwIfAborted();
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
    this.active.delete(sequence);
    if (keep && this.reuse && sequence.tokens.length >= REUSE_TOKENS_MIN) {
      const used = this.pagesOf(sequence.tokens.length);
      this.giveBack(sequence.pages.subarray(used));
      sequence.pages = sequence.pages.slice(0, used);
      this.finished.push(sequence);
    } else {
      this.giveBack(sequence.pages);
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
    const needed = this.pagesOf(capacity);
    const reclaimable = this.finished.reduce((pages, sequence) => pages + sequence.pages.length, 0);
    if (needed > this.limit - this.ownedCount + reclaimable) return undefined;

    const found = this.longestPrefix(prompt);
    const start = found?.sequence ?? { tokens: [], pages: new Uint32Array() };
    if (found) this.finished = this.finished.filter((other) => other !== found.sequence);
    const kept = Math.min(this.pagesOf(found?.length ?? 0), needed);
    this.giveBack(start.pages.subarray(kept));
    const room = Math.min(this.limit, Math.max(this.keep, needed));
    while (this.ownedCount + needed - kept > room && this.finished.length > 0) {
      this.giveBack((this.finished.shift() as Sequence).pages);
    }
    const pages = new Uint32Array(needed);
    pages.set(start.pages.subarray(0, kept));
    pages.set(this.take(needed - kept), kept);
    const sequence = { tokens: start.tokens.slice(0, found?.length ?? 0), capacity, pages };
    this.active.add(sequence);
    return sequence;
  }

  private pagesOf(tokens: number): number {
    return Math.ceil(tokens / this.pagePositions);
  }

  /** Those first that cost no more memory. */
  private take(count: number): number[] {
    const free = [...this.owned.keys()].filter((page) => !this.owned[page]);
    free.sort((a, b) => (this.committed[b] ?? 0) - (this.committed[a] ?? 0) || a - b);
    const taken = free.slice(0, count);
    for (const page of taken) this.owned[page] = 1;
    this.ownedCount += taken.length;
    return taken;
  }

  private giveBack(pages: Uint32Array): void {
    for (const page of pages) this.owned[page] = 0;
    this.ownedCount -= pages.length;
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
