/**
 * Keeps the tape moving: sees to it that a worker is inside native code, which reads the tape, whenever a pass runs. The
 * worker leaves when the ring is full between passes, and is sent back by the next pass.
 */
import { Piscina } from "piscina";
import { READ_DONE, READ_PAUSED } from "../native/types.js";
import type { ReadTask } from "./prefetch-worker.js";

/** What `readTape` came to. */
type ReadStatus = number;

export class Prefetcher {
  private readonly pool: Piscina<ReadTask, ReadStatus>;
  private inFlight: Promise<void> | undefined;
  private running = false;
  /** Everything is held and has been read: nobody is sent until the tape starts over. */
  private done = false;
  private failure: unknown;

  constructor() {
    this.pool = new Piscina<ReadTask, ReadStatus>({
      filename: new URL("./prefetch-worker.js", import.meta.url).href,
      minThreads: 1,
      maxThreads: 1,
      // The worker runs native code only: a small heap keeps the process small.
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 2 },
    });
  }

  /** Starts the worker, so that its memory is in the process's size before budgets are cut. */
  async warmUp(): Promise<void> {
    await this.pool.run({ model: 0 });
  }

  /** A pass begins. `onFailure` is called if the worker dies: nobody would read what the pass waits for. */
  start(model: number, onFailure: () => void): void {
    this.running = true;
    if (this.inFlight || this.done || this.failure !== undefined) return;
    this.inFlight = this.read(model, onFailure);
  }

  /** The pass is over: reads go on until the ring is full. */
  idle(): void {
    this.running = false;
  }

  /** The tape has been cancelled: resolves when no worker is inside native code, with the error of one that died. */
  async settled(): Promise<unknown> {
    this.running = false;
    await this.inFlight;
    const failure = this.failure;
    this.failure = undefined;
    this.done = false;
    return failure;
  }

  async close(): Promise<void> {
    await this.settled();
    await this.pool.destroy();
  }

  private async read(model: number, onFailure: () => void): Promise<void> {
    let status: ReadStatus | undefined;
    try {
      status = await this.pool.run({ model });
    } catch (error) {
      this.failure = error;
      onFailure();
    }
    this.inFlight = undefined;
    this.done = status === READ_DONE;
    // It left between two passes, and the second has begun meanwhile.
    if (status === READ_PAUSED && this.running) this.start(model, onFailure);
  }
}
