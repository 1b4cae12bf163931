import { writeSync } from "node:fs";
import { checksumOf } from "../checkpoint/checksum.js";
import { ioError } from "../checkpoint/file-io.js";
import { CHECKSUM_BLOCK_BYTES } from "../checkpoint/manifest.js";
import type { Control } from "./task.js";

/**
 * Writes a file from start to end in large aligned pieces, and computes the checksum of each block from the bytes in
 * memory, before they go to the disk.
 */
export class BlockWriter {
  #used = 0;
  #position = 0;
  readonly #checksums: string[] = [];

  /** `buffer` holds a whole number of checksum blocks. */
  constructor(
    private readonly file: string,
    private readonly descriptor: number,
    private readonly buffer: Uint8Array,
    private readonly control: Control,
  ) {}

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

  /** Writes what is left and returns the checksums of all blocks, as in the manifest. */
  finish(): string {
    this.#flush();
    return this.#checksums.join("");
  }

  #flush(): void {
    this.control.throwIfStopped();
    for (let start = 0; start < this.#used; start += CHECKSUM_BLOCK_BYTES) {
      const block = this.buffer.subarray(start, Math.min(start + CHECKSUM_BLOCK_BYTES, this.#used));
      this.#checksums.push(checksumOf(block));
    }
    try {
      for (let done = 0; done < this.#used; ) done += writeSync(this.descriptor, this.buffer, done, this.#used - done);
    } catch (error) {
      throw ioError(error, "write", this.file, this.#position);
    }
    this.control.addBytes(this.#used);
    this.#position += this.#used;
    this.#used = 0;
  }
}
