/** Holds text back while it may be the beginning of a stop string. Pieces put together are the text before the first. */
export class StopStrings {
  private pending = "";
  stopped = false;

  constructor(private readonly stops: readonly string[]) {}

  /** Text that is certain now. After `stopped`, nothing more comes. */
  push(piece: string): string {
    if (this.stopped) return "";
    this.pending += piece;
    const found = this.stops.map((stop) => this.pending.indexOf(stop)).filter((index) => index >= 0);
    if (found.length > 0) {
      this.stopped = true;
      return this.take(Math.min(...found));
    }
    return this.take(this.pending.length - this.heldBack());
  }

  /** What was held back, at the end of the generation. */
  flush(): string {
    return this.stopped ? "" : this.take(this.pending.length);
  }

  private take(length: number): string {
    const text = this.pending.slice(0, length);
    this.pending = this.pending.slice(length);
    return text;
  }

  /** Length of the longest end of `pending` that begins a stop string. */
  private heldBack(): number {
    const longest = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.pending.length); length > 0; length--) {
      const end = this.pending.slice(-length);
      if (this.stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
