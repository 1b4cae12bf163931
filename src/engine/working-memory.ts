/**
 * How memory moves between passes and weights: when the KV cache or a pass needs more, chunks are given back; when much
 * less would do, they are held again. Decides when to plan anew; `residency.ts` decides what.
 */
import { totalmem } from "node:os";
import { LayerstreamError } from "../errors.js";
import type { KvCache, Sequence } from "./kv-cache.js";
import { planResidency } from "./residency.js";
import {
  LEAST_TOKENS,
  MOST_TOKENS,
  PAGE_POSITIONS,
  type ResidencyInput,
  type ResidencyPlan,
} from "./residency-sizes.js";

/** A growing sequence is given this many tokens ahead, or an eighth of its length: every change restarts the tape. */
const AHEAD_TOKENS = 512;
/** Holding more is worth it when what it spares until the sequence ends is so many times what a restart reads again. */
const WORTH_RESTARTS = 4;
/** Finished sequences may keep this share of the budget when others come. */
const KEPT_SHARE = 1 / 8;

/** What to change before the next pass. */
export interface MemoryChange {
  plan: ResidencyPlan;
  /** A flag for each page of the KV cache that is in memory. */
  pages: Uint8Array;
  budgetBytes: number;
}

/**
 * Pages of the KV cache and tokens of a pass that may ever be committed, whatever budget comes: address space, as much as
 * the machine, or a device with memory of its own, has of it.
 */
export function reservedSizes(input: ResidencyInput, plan: ResidencyPlan): { pages: number; tokens: number } {
  const { deviceMemoryBytes = 0, kvBytesPerPosition, kvLayers } = input;
  const longest = Math.min(input.contextLimit, MOST_TOKENS, (deviceMemoryBytes + totalmem()) / kvBytesPerPosition);
  const memoryBytes = deviceMemoryBytes || totalmem();
  // Of each layer, all of what is used of it may be on the device.
  const inLayer = (memoryBytes * kvLayers) / kvBytesPerPosition;
  const pages = Math.max(plan.pageCount, Math.floor(Math.min(longest, inLayer) / PAGE_POSITIONS));
  // Half: a block's registers are beside them.
  const most = Math.floor(memoryBytes / 2 / input.activations.passBytesPerToken);
  const tokens = Math.min(pages * PAGE_POSITIONS, most);
  return { pages, tokens: Math.max(tokens, plan.working.tokens) };
}

export class WorkingMemoryPlanner {
  /** A prompt has come since the last look at whether less would do. */
  private mayShrink = false;

  constructor(
    private input: ResidencyInput,
    public plan: ResidencyPlan,
    private readonly cache: KvCache,
  ) {
    this.limitCache();
  }

  get budgetBytes(): number {
    return this.input.budgetBytes;
  }

  /** Before a pass of up to `tokens` more of `sequence`. Afterwards it may carry `plan.working.tokens` of them. */
  beforePass(sequence: Sequence, tokens: number): MemoryChange | undefined {
    const end = sequence.tokens.length + tokens;
    if (tokens > 1) this.mayShrink = true;
    if (tokens > this.plan.working.tokens || !this.cache.covers(sequence, end)) {
      return this.unlessSame(this.growth(sequence, tokens));
    }
    if (tokens > 1 || !this.mayShrink) return undefined;
    this.mayShrink = false;
    return this.shrinkage(sequence, end);
  }

  /** So that logits of so many tokens fit beside everything. */
  beforeLogits(rows: number): MemoryChange | undefined {
    if (rows <= this.plan.working.logitsRows) return undefined;
    return this.withoutFinished(() => this.change(this.cache.pagesInUse(), 1, { logitsRows: rows }));
  }

  /** @throws MEMORY_BUDGET_TOO_SMALL, also when the sequences that are running do not fit */
  forBudget(budgetBytes: number): MemoryChange {
    this.change(this.cache.pagesOfActive(), 1, { budgetBytes });
    return this.withoutFinished(() => this.change(this.cache.pagesInUse(), 1, { budgetBytes }));
  }

  adopt({ plan, pages, budgetBytes }: MemoryChange): void {
    this.plan = plan;
    this.input = { ...this.input, budgetBytes };
    this.cache.setCommitted(pages);
    this.limitCache();
  }

  private limitCache(): void {
    const { pageCount, kvBytes, working } = this.plan;
    const pageBytes = working.pages > 0 ? kvBytes / working.pages : 1;
    const { budgetBytes, vramBytes = budgetBytes } = this.input;
    this.cache.setLimits(pageCount, Math.floor((vramBytes * KEPT_SHARE) / pageBytes));
  }

  private growth(sequence: Sequence, tokens: number): MemoryChange {
    const end = sequence.tokens.length + tokens;
    const ahead = end + Math.max(AHEAD_TOKENS, end / 8);
    const upTo = (length: number) => () => this.change(this.cache.pagesInUse(sequence, length), tokens);
    try {
      const change = upTo(ahead)();
      // What finished sequences left is not worth a place in a file.
      return change.plan.kvSpilledBytes > 0 && this.cache.dropFinished() ? upTo(ahead)() : change;
    } catch (error) {
      if (!isTooSmall(error)) throw error;
      return this.withoutFinished(upTo(end));
    }
  }

  /** Undefined where the change is not worth what a restart of the tape costs. */
  private shrinkage(sequence: Sequence, end: number): MemoryChange | undefined {
    if (movedByToken(this.plan) === 0) return undefined;
    const ahead = end + Math.max(AHEAD_TOKENS, end / 8);
    const change = this.change(this.cache.pagesInUse(sequence, ahead), 1);
    const spared = movedByToken(this.plan) - movedByToken(change.plan);
    const tokensLeft = sequence.capacity - end;
    return spared * tokensLeft > WORTH_RESTARTS * this.plan.ringBytes ? change : undefined;
  }

  /** A prompt that no plan can take in one pass is planned for again and again: nothing changes then. */
  private unlessSame(change: MemoryChange): MemoryChange | undefined {
    const { working } = change.plan;
    const same = working.tokens === this.plan.working.tokens && working.pages === this.plan.working.pages;
    return same && this.cache.isCommitted(change.pages) ? undefined : change;
  }

  private withoutFinished(make: () => MemoryChange): MemoryChange {
    try {
      return make();
    } catch (error) {
      if (!isTooSmall(error) || !this.cache.dropFinished()) throw error;
      return make();
    }
  }

  private change(
    pages: Uint8Array,
    tokens: number,
    { budgetBytes = this.budgetBytes, logitsRows = this.plan.working.logitsRows } = {},
  ): MemoryChange {
    const count = pages.reduce((sum, flag) => sum + flag, 0);
    const working = { pages: count, tokens: Math.max(tokens, LEAST_TOKENS), logitsRows };
    return { plan: planResidency({ ...this.input, budgetBytes, working, held: this.plan.held }), pages, budgetBytes };
  }
}

/** Bytes that a token brings to where passes use them, from disk or from the host's memory. */
function movedByToken({ streamedBytes, heldBytes, deviceHeldBytes, kvSpilledBytes }: ResidencyPlan): number {
  return streamedBytes + heldBytes - deviceHeldBytes + kvSpilledBytes;
}

function isTooSmall(error: unknown): boolean {
  return error instanceof LayerstreamError && error.code === "MEMORY_BUDGET_TOO_SMALL";
}
