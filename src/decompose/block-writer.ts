import { closeSync, constants, fsyncSync, openSync, writeSync } from "node:fs";
import { getSystemErrorName } from "node:util";
import { checksumOf } from "../checkpoint/checksum.js";
import { ioError } from "../checkpoint/file-io.js";
import { CHECKSUM_BLOCK_BYTES } from "../checkpoint/manifest.js";
import type { NativeTransfer } from "../native/types.js";
import { floorToPage, isDirectRefused, openDirect } from "./direct-file.js";
import type { Control } from "./task.js";

/** A piece of the file that is on its way to the disk. */
interface Piece {
  buffer: number;
  length: number;
  /** Bytes of it that the write under way carries. */
  started: number;
}

/**
 * Writes a new file from start to end in large aligned pieces, each while the next one is made, and computes the checksum
 * of each block from the bytes in memory, before they go to the disk.
 */
export class BlockWriter {
  readonly #descriptor: number;
  #direct: number | undefined;
  /** The buffer that is being filled, and how far. */
  #buffer = 0;
  #used = 0;
  /** Where in the file the piece under way begins, or else the next one. */
  #position = 0;
  #piece: Piece | undefined;
  readonly #checksums: string[] = [];

  /** `transfer` has two buffers, each of a whole number of checksum blocks. */
  constructor(
    private readonly file: string,
    private readonly transfer: NativeTransfer,
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
    return this.#memory(this.#buffer).subarray(this.#used);
  }

  /** The first `count` bytes of `space()` are part of the file. */
  commit(count: number): void {
    this.#used += count;
    if (this.#used === this.#memory(this.#buffer).length) this.#flush();
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
      this.#finishPiece();
      fsyncSync(this.#descriptor);
    } catch (error) {
      throw ioError(error, "write", this.file);
    }
    return this.#checksums.join("");
  }

  close(): void {
    if (this.#piece && this.#piece.started > 0) this.transfer.finish();
    this.#piece = undefined;
    closeSync(this.#descriptor);
    if (this.#direct !== undefined) closeSync(this.#direct);
    this.#direct = undefined;
  }

  #memory(buffer: number): Uint8Array {
    return this.transfer.buffers[buffer] as Uint8Array;
  }

  #flush(): void {
    this.control.throwIfStopped();
    const memory = this.#memory(this.#buffer);
    for (let start = 0; start < this.#used; start += CHECKSUM_BLOCK_BYTES) {
      const block = memory.subarray(start, Math.min(start + CHECKSUM_BLOCK_BYTES, this.#used));
      this.#checksums.push(checksumOf(block));
    }
    this.#finishPiece();
    // Whole pages go directly, the rest of the last piece through the page cache.
    const started = this.#direct === undefined ? this.#used : floorToPage(this.#used);
    this.#piece = { buffer: this.#buffer, length: this.#used, started };
    if (started > 0) {
      const descriptor = this.#direct ?? this.#descriptor;
      this.transfer.start(true, descriptor, this.#buffer, 0, started, this.#position);
    }
    this.#buffer = 1 - this.#buffer;
    this.#used = 0;
  }

  /** Waits for the piece under way, and writes what the system left of it. */
  #finishPiece(): void {
    const piece = this.#piece;
    if (piece === undefined) return;
    this.#piece = undefined;
    try {
      let done = piece.started > 0 ? this.#finishWrite() : 0;
      while (done < piece.length) done += this.#writeOnce(piece, done);
    } catch (error) {
      throw ioError(error, "write", this.file, this.#position);
    }
    this.control.addBytes(piece.length);
    this.#position += piece.length;
  }

  #finishWrite(): number {
    const result = this.transfer.finish();
    if (result >= 0) return result;
    const code = getSystemErrorName(result);
    const error = Object.assign(new Error(code), { code });
    if (this.#direct === undefined || !isDirectRefused(error)) throw error;
    closeSync(this.#direct);
    this.#direct = undefined;
    return 0;
  }

  #writeOnce({ buffer, length }: Piece, start: number): number {
    return writeSync(this.#descriptor, this.#memory(buffer), start, length - start, this.#position + start);
  }
}
