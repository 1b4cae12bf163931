import { closeSync, openSync, readSync } from "node:fs";
import { ioError } from "../checkpoint/file-io.js";
import { LayerstreamError } from "../errors.js";

/** Positional reads from the files of a checkpoint; keeps the last one open. */
export class BlockReader {
  #file = "";
  #descriptor: number | undefined;

  /** @throws IO_ERROR if the file ends too early, naming tensor and offset. */
  readInto(buffer: Uint8Array, file: string, offset: number, tensor: string): void {
    let done = 0;
    try {
      const descriptor = this.#open(file);
      while (done < buffer.length) {
        const count = readSync(descriptor, buffer, done, buffer.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
    } catch (error) {
      throw ioError(error, "read", file, offset + done);
    }
    if (done === buffer.length) return;
    throw new LayerstreamError("IO_ERROR", `${file} ended at byte ${offset + done}, in the middle of "${tensor}".`, {
      file,
      tensor,
      offset: offset + done,
      remedy: "The file became shorter while it was read: restore it and try again.",
    });
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.#file = "";
  }

  #open(file: string): number {
    if (this.#descriptor !== undefined && this.#file === file) return this.#descriptor;
    this.close();
    this.#descriptor = openSync(file, "r");
    this.#file = file;
    return this.#descriptor;
  }
}
