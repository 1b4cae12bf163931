/** What Ctrl-C and a request to terminate do: the first one aborts `signal`, the second ends the process. */
export class Interrupts {
  readonly #controller = new AbortController();
  #handler: (() => void) | undefined;
  #exitCode: number | undefined;

  constructor() {
    process.on("SIGINT", () => this.#interrupt(130));
    process.on("SIGTERM", () => this.#interrupt(143));
  }

  /** Aborted by the first interrupt. Commands pass it on and clean up when it fires. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** 130 or 143 once interrupted, as shells expect. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /** Until `undefined` is given, Ctrl-C calls `handler` instead of aborting. */
  handleWith(handler: (() => void) | undefined): void {
    this.#handler = handler;
  }

  #interrupt(exitCode: number): void {
    if (this.#handler && exitCode === 130) {
      this.#handler();
      return;
    }
    if (this.signal.aborted) process.exit(exitCode);
    this.#exitCode = exitCode;
    this.#controller.abort();
  }
}
