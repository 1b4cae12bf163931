/**
 * Keeps the tape moving: submits one piscina task a stage, in execution order, across the end of the pass. Native code
 * paces the reads by the space in the ring; this class only sees to it that the next stages are always asked for.
 */
import { Piscina } from "piscina";
import { READ_DONE, READ_PAUSED } from "../native/types.js";
import type { ReadTask } from "./prefetch-worker.js";

/** One task reads; the next one waits for its turn, so that no gap opens between two stages. */
const WORKERS = 2;

/** The stage at a tape position: first those with something to load or stream, then those that stream over and over. */
export function stageAt(position: number, firstPass: readonly number[], cycle: readonly number[]): number | undefined {
  if (position < firstPass.length) return firstPass[position];
  if (cycle.length === 0) return undefined;
  return cycle[(position - firstPass.length) % cycle.length];
}

export class Prefetcher {
  private readonly pool: Piscina<ReadTask, number>;
  private firstPass: readonly number[] = [];
  private cycle: readonly number[] = [];
  private nextPosition = 0;
  /** Positions whose reader left because the ring was full. */
  private paused: number[] = [];
  private readonly inFlight = new Set<Promise<void>>();
  private running = false;
  private ahead = true;
  private failure: unknown;

  constructor() {
    this.pool = new Piscina<ReadTask, number>({
      filename: new URL("./prefetch-worker.js", import.meta.url).href,
      minThreads: WORKERS,
      maxThreads: WORKERS,
      // Workers run native code only: small heaps keep the process small.
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2 },
    });
  }

  /** Starts the workers, so that their memory is in the process's size before budgets are cut. */
  async warmUp(): Promise<void> {
    await Promise.all(
      Array.from({ length: WORKERS }, () => this.pool.run({ model: 0, position: 0, stage: 0, load: false })),
    );
  }

  /** From tape position 0. What the next pass takes off the tape, and what every later one does, in execution order. */
  rewind(firstPass: readonly number[], cycle: readonly number[]): void {
    this.firstPass = firstPass;
    this.cycle = cycle;
    this.nextPosition = 0;
    this.paused = [];
    this.failure = undefined;
  }

  start(model: number): void {
    this.running = true;
    this.pump(model);
  }

  /** The pass is over: reads go on until the ring is full, or, unless `ahead`, until the tasks under way have ended. */
  idle(ahead: boolean): void {
    this.running = false;
    this.ahead = ahead;
  }

  /** The tape has been cancelled: resolves when no worker is inside native code. */
  async settled(): Promise<void> {
    this.running = false;
    while (this.inFlight.size > 0) await Promise.all(this.inFlight);
  }

  async close(): Promise<void> {
    await this.settled();
    await this.pool.destroy();
  }

  private pump(model: number): void {
    while (this.inFlight.size < WORKERS && this.failure === undefined) {
      const position = this.takePosition();
      if (position === undefined) return;
      const stage = stageAt(position, this.firstPass, this.cycle) as number;
      const task: Promise<void> = this.read(model, position, stage).finally(() => {
        this.inFlight.delete(task);
        if (this.running || (this.ahead && this.paused.length === 0)) this.pump(model);
      });
      this.inFlight.add(task);
    }
  }

  private takePosition(): number | undefined {
    const paused = this.paused.sort((a, b) => a - b).shift();
    if (paused !== undefined) return paused;
    return stageAt(this.nextPosition, this.firstPass, this.cycle) === undefined ? undefined : this.nextPosition++;
  }

  private async read(model: number, position: number, stage: number): Promise<void> {
    try {
      const status = await this.pool.run({ model, position, stage, load: position < this.firstPass.length });
      if (status === READ_PAUSED) this.paused.push(position);
      else if (status !== READ_DONE) this.failure = "cancelled";
    } catch (error) {
      // The pass that needs this stage fails with the same error, from native code.
      this.failure = error;
    }
  }
}
