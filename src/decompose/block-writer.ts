import { closeSync, constants, fsyncSync, openSync, writeSync } from "node:fs";
import { checksumOf } from "../checkpoint/checksum.js";
import { ioError } from "../checkpoint/file-io.js";
import { CHECKSUM_BLOCK_BYTES, PAGE_BYTES } from "../checkpoint/manifest.js";
import { isDirectRefused, openDirect } from "./direct-file.js";
import type { Control } from "./task.js";

/**
 * Writes a new file from start to end in large aligned pieces, and computes the checksum of each block from the bytes
 * in memory, before they go to the disk.
 */
export class BlockWriter {
  readonly #descriptor: number;
  #direct: number | undefined;
  #used = 0;
  #position = 0;
  readonly #checksums: string[] = [];

  /** `buffer` comes from `allocateBuffer` and holds a whole number of checksum blocks. */
  constructor(
    private readonly file: string,
    private readonly buffer: Uint8Array,
    private readonly control: Control,
  ) {
    try {
      this.#descriptor = openSync(file, "w");
      this.#direct = openDirect(file, constants.O_WRONLY);
    } catch (error) {
      throw ioError(error, "write", file);
    }
  }

  /** Free space of the buffer, never empty: fill from its start, then `commit`. */
  space(): Uint8Array {
    return this.buffer.subarray(this.#used);
  }

  /** The first `count` bytes of `space()` are part of the file. */
  commit(count: number): void {
    this.#used += count;
    if (this.#used === this.buffer.length) this.#flush();
  }

  append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const space = this.space();
      const piece = bytes.subarray(done, done + space.length);
      space.set(piece);
      this.commit(piece.length);
      done += piece.length;
    }
  }

  appendZeros(count: number): void {
    for (let left = count; left > 0; ) {
      const piece = this.space().subarray(0, left);
      piece.fill(0);
      left -= piece.length;
      this.commit(piece.length);
    }
  }

  /** Writes what is left, makes the file durable, and returns the checksums of all blocks, as in the manifest. */
  finish(): string {
    this.#flush();
    try {
      fsyncSync(this.#descriptor);
    } catch (error) {
      throw ioError(error, "write", this.file);
    }
    return this.#checksums.join("");
  }

  close(): void {
    closeSync(this.#descriptor);
    if (this.#direct !== undefined) closeSync(this.#direct);
    this.#direct = undefined;
  }

  #flush(): void {
    this.control.throwIfStopped();
    for (let start = 0; start < this.#used; start += CHECKSUM_BLOCK_BYTES) {
      const block = this.buffer.subarray(start, Math.min(start + CHECKSUM_BLOCK_BYTES, this.#used));
      this.#checksums.push(checksumOf(block));
    }
    try {
      for (let done = 0; done < this.#used; ) done += this.#writeOnce(done);
    } catch (error) {
      throw ioError(error, "write", this.file, this.#position);
    }
    this.control.addBytes(this.#used);
    this.#position += this.#used;
    this.#used = 0;
  }

  /** Whole pages directly, the rest of the last piece through the page cache. */
  #writeOnce(start: number): number {
    const length = this.#used - start;
    const position = this.#position + start;
    if (this.#direct !== undefined && start % PAGE_BYTES === 0 && length >= PAGE_BYTES) {
      try {
        return writeSync(this.#direct, this.buffer, start, length - (length % PAGE_BYTES), position);
      } catch (error) {
        if (!isDirectRefused(error)) throw error;
        closeSync(this.#direct);
        this.#direct = undefined;
      }
    }
    return writeSync(this.#descriptor, this.buffer, start, length, position);
  }
}
