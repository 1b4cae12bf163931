import { closeSync, constants, openSync, readSync } from "node:fs";
import { ioError } from "../checkpoint/file-io.js";
import { PAGE_BYTES } from "../checkpoint/manifest.js";
import { LayerstreamError } from "../errors.js";
import { native } from "../native/binding.js";
import { ceilToPage, floorToPage, isDirectRefused, openDirect } from "./direct-file.js";

/** Positional reads of at most `capacity` bytes into one buffer that is used again; keeps the last file open. */
export class BlockReader {
  readonly #buffer: Uint8Array;
  #file = "";
  #descriptor: number | undefined;
  #isDirect = false;

  constructor(readonly capacity: number) {
    this.#buffer = native().allocateBuffer(capacity + 2 * PAGE_BYTES);
  }

  /**
   * The bytes stay valid until the next call. `what` is named if the file ends too early.
   * @throws IO_ERROR naming file and offset
   */
  read(file: string, offset: number, length: number, what: string): Uint8Array {
    const begin = floorToPage(offset);
    const needed = offset - begin + length;
    let done = 0;
    try {
      this.#open(file);
      done = this.#fill(begin, needed);
    } catch (error) {
      throw ioError(error, "read", file, offset);
    }
    if (done >= needed) return this.#buffer.subarray(offset - begin, needed);
    throw new LayerstreamError("IO_ERROR", `${file} ended at byte ${begin + done}, in the middle of ${what}.`, {
      file,
      offset: begin + done,
      remedy: "The file became shorter while it was read: restore it and try again.",
    });
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #open(file: string): void {
    if (this.#descriptor !== undefined && this.#file === file) return;
    this.close();
    const direct = openDirect(file, constants.O_RDONLY);
    this.#isDirect = direct !== undefined;
    this.#descriptor = direct ?? openSync(file, "r");
    this.#file = file;
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
      return readSync(descriptor, this.#buffer, start, length, position);
    } catch (error) {
      if (!this.#isDirect || !isDirectRefused(error)) throw error;
      closeSync(descriptor);
      this.#descriptor = openSync(this.#file, "r");
      this.#isDirect = false;
      return readSync(this.#descriptor, this.#buffer, start, length, position);
    }
  }
}
