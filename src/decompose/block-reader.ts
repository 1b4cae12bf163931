import { closeSync, constants, openSync, readSync } from "node:fs";
import { ioError } from "../checkpoint/file-io.js";
import { PAGE_BYTES } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import type { NativeTransfer } from "../native/types.js";
import { ceilToPage, floorToPage, isDirectRefused, openDirect } from "./direct-file.js";

export interface FileRange {
  file: string;
  offset: number;
  byteLength: number;
}

/** What one buffer holds, or is being filled with. */
interface Extent {
  buffer: number;
  /** Of the file, on a page. */
  begin: number;
  length: number;
}

/**
 * Positional reads of at most `capacity` bytes into buffers that are used again; keeps the last file open. What follows a
 * read is read ahead while the caller works on it.
 */
export class BlockReader {
  readonly #transfer: NativeTransfer;
  #file = "";
  #descriptor: number | undefined;
  #isDirect = false;
  /** The buffer that the caller has. */
  #held = 0;
  #ahead: Extent | undefined;
  /** What will be read after the `end` of the reads under way. */
  next: FileRange | undefined;

  constructor(readonly capacity: number) {
    this.#transfer = native().createTransfer(2, capacity + 2 * PAGE_BYTES);
  }

  /**
   * The bytes stay valid until the next call. `what` is named if the file ends too early. With `end`, reads as long as this
   * one follow up to there, and then those of `next`.
   * @throws IO_ERROR naming file and offset
   */
  read(file: string, offset: number, length: number, what: string, end?: number): Uint8Array {
    let begin = floorToPage(offset);
    const needed = offset - begin + length;
    let done = 0;
    try {
      const ahead = this.#finishAhead();
      if (ahead && file === this.#file && ahead.begin <= begin && begin + needed <= ahead.begin + ahead.length) {
        this.#held = ahead.buffer;
        done = needed;
        begin = ahead.begin;
      } else {
        this.#open(file);
        done = this.#fill(begin, needed);
      }
      if (end !== undefined) this.#startAhead(this.#following(file, offset + length, length, end));
    } catch (error) {
      throw ioError(error, "read", file, offset);
    }
    const start = offset - begin;
    if (done >= needed) return this.#buffer().subarray(start, start + length);
    throw new LayerstreamError("IO_ERROR", `${file} ended at byte ${begin + done}, in the middle of ${what}.`, {
      file,
      offset: begin + done,
      remedy: "The file became shorter while it was read: restore it and try again.",
    });
  }

  close(): void {
    this.#finishAhead();
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #buffer(): Uint8Array {
    return this.#transfer.buffers[this.#held] as Uint8Array;
  }

  #open(file: string): void {
    if (this.#descriptor !== undefined && this.#file === file) return;
    this.close();
    const direct = openDirect(file, constants.O_RDONLY);
    this.#isDirect = direct !== undefined;
    this.#descriptor = direct ?? openSync(file, "r");
    this.#file = file;
  }

  #following(file: string, offset: number, length: number, end: number): FileRange | undefined {
    return offset < end ? { file, offset, byteLength: Math.min(length, end - offset) } : this.next;
  }

  #startAhead(range: FileRange | undefined): void {
    if (this.#descriptor === undefined || range?.file !== this.#file) return;
    const { offset, byteLength } = range;
    const begin = floorToPage(offset);
    const length = ceilToPage(offset - begin + Math.min(byteLength, this.capacity));
    this.#ahead = { buffer: 1 - this.#held, begin, length };
    this.#transfer.start(false, this.#descriptor, 1 - this.#held, 0, length, begin);
  }

  /** Undefined if nothing was read ahead, or not all of it: reading it again says why. */
  #finishAhead(): Extent | undefined {
    const ahead = this.#ahead;
    if (ahead === undefined) return undefined;
    this.#ahead = undefined;
    // At the end of a file the last page is not whole.
    const length = this.#transfer.finish();
    return length > 0 ? { ...ahead, length } : undefined;
  }

  /** Reads `needed` bytes from the page at `begin`, or up to the end of the file; returns how many there are. */
  #fill(begin: number, needed: number): number {
    const wanted = ceilToPage(needed);
    let done = 0;
    while (done < needed) {
      const count = this.#readOnce(done, wanted - done, begin + done);
      done += count;
      // Direct reads go on at whole pages; they stop elsewhere only at the end of the file.
      if (count === 0 || (this.#isDirect && done % PAGE_BYTES !== 0)) break;
    }
    return done;
  }

  #readOnce(start: number, length: number, position: number): number {
    const descriptor = this.#descriptor as number;
    try {
      return readSync(descriptor, this.#buffer(), start, length, position);
    } catch (error) {
      if (!this.#isDirect || !isDirectRefused(error)) throw error;
      closeSync(descriptor);
      this.#descriptor = openSync(this.#file, "r");
      this.#isDirect = false;
      return readSync(this.#descriptor, this.#buffer(), start, length, position);
    }
  }
}
