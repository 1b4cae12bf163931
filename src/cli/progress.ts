import { SingleBar } from "cli-progress";
import { formatBytes, formatDuration, formatRate } from "../units.js";

/** Bytes a second over the last `windowSeconds`, so that the estimate follows the disk and not the start. */
export class RateMeter {
  readonly #samples: { seconds: number; bytes: number }[] = [];
  readonly #windowSeconds: number;

  constructor(windowSeconds = 5) {
    this.#windowSeconds = windowSeconds;
  }

  /** Notes that `bytes` were done at `seconds` of any steady clock. */
  add(bytes: number, seconds: number): void {
    this.#samples.push({ seconds, bytes });
    while (this.#samples.length > 2 && (this.#samples[1]?.seconds ?? seconds) <= seconds - this.#windowSeconds) {
      this.#samples.shift();
    }
  }

  /** 0 until two samples at different times exist. */
  get bytesPerSecond(): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.seconds <= first.seconds) return 0;
    return (last.bytes - first.bytes) / (last.seconds - first.seconds);
  }
}

export interface Progress {
  update(bytesDone: number, bytesTotal: number): void;
  /** Takes the bar away. Safe to call twice, and without any update. */
  stop(): void;
}

/** A bar with rate and ETA on a terminal; nothing at all when stderr is piped. */
export function createProgress(label: string): Progress {
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const meter = new RateMeter();
  const bar = new SingleBar({
    format: `${label} {bar} {percentage}%  {done} of {all}  {rate}  {eta}`,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    barsize: 30,
    hideCursor: true,
    clearOnComplete: true,
    stream: process.stderr,
  });
  let started = false;
  return {
    update(bytesDone, bytesTotal) {
      meter.add(bytesDone, performance.now() / 1000);
      const rate = meter.bytesPerSecond;
      const payload = {
        done: formatBytes(bytesDone),
        all: formatBytes(bytesTotal),
        rate: rate > 0 ? formatRate(rate) : "",
        eta: rate > 0 ? `${formatDuration((bytesTotal - bytesDone) / rate)} left` : "",
      };
      if (started) {
        bar.setTotal(bytesTotal);
        bar.update(bytesDone, payload);
      } else {
        bar.start(bytesTotal, bytesDone, payload);
        started = true;
      }
    },
    stop() {
      if (started) bar.stop();
      started = false;
    },
  };
}
