/** What crosses the threads between decompose or verify and their workers: descriptions and counters, no tensors. */
import { type ErrorCode, LayerstreamError } from "../errors.js";
import type { Candidate } from "./encoding.js";
import type { Segment } from "./layout.js";

export interface WriteTask {
  /** Created or emptied, then filled and made durable. */
  file: string;
  header: Uint8Array;
  segments: Segment[];
  control: SharedArrayBuffer;
}

export interface SurveyTask {
  candidates: Candidate[];
  control: SharedArrayBuffer;
}

export interface CheckTask {
  file: string;
  size: number;
  /** As in the manifest. */
  checksums: string;
  control: SharedArrayBuffer;
}

/** Errors lose their class between threads, so a failure travels as data. */
export type TaskResult<T> = { ok: true; value: T } | { ok: false; failure: TaskFailure };

export interface TaskFailure {
  code: ErrorCode;
  /** The message without the remedy. */
  what: string;
  remedy: string | undefined;
  file: string | undefined;
  tensor: string | undefined;
  offset: number | undefined;
}

export function failureOf({ code, message, remedy, file, tensor, offset }: LayerstreamError): TaskFailure {
  const what = remedy === undefined ? message : message.slice(0, -(remedy.length + 1));
  return { code, what, remedy, file, tensor, offset };
}

export function errorOf({ code, what, ...details }: TaskFailure): LayerstreamError {
  return new LayerstreamError(code, what, details);
}

/** Counts bytes done and carries the wish to stop; all threads of a run share one. */
export class Control {
  readonly #bytes: BigInt64Array;

  constructor(readonly buffer = new SharedArrayBuffer(16)) {
    this.#bytes = new BigInt64Array(buffer);
  }

  get bytesDone(): number {
    return Number(Atomics.load(this.#bytes, 0));
  }

  addBytes(count: number): void {
    Atomics.add(this.#bytes, 0, BigInt(count));
  }

  stop(): void {
    Atomics.store(this.#bytes, 1, 1n);
  }

  /** @throws ABORTED after `stop`. */
  throwIfStopped(): void {
    if (Atomics.load(this.#bytes, 1) === 0n) return;
    throw new LayerstreamError("ABORTED", "Stopped on request.");
  }
}
