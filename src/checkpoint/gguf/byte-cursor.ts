import { createHash } from "node:crypto";
import { LayerstreamError } from "../../errors.js";
import type { ByteSource } from "../byte-source.js";

const WINDOW_BYTES = 1 << 20;

/** An error of a GGUF file: `what` follows the file's name. */
export function ggufInvalid(
  file: string,
  what: string,
  details: { offset?: number; tensor?: string } = {},
): LayerstreamError {
  const remedy = "The file is damaged or incomplete: download or copy it again.";
  return new LayerstreamError("GGUF_INVALID", `${file} ${what}.`, { ...details, file, remedy });
}

/**
 * Reads a file from its start, in order, through a window of about 1 MiB. Nothing is allocated for bytes that the file
 * does not have.
 */
export class ByteCursor {
  readonly #hash = createHash("sha256");
  #window: Buffer = Buffer.alloc(0);
  /** Within the window. */
  #position = 0;
  #windowStart = 0;

  /** @param limit bytes that may be read in all. */
  constructor(
    private readonly source: ByteSource,
    private readonly limit: number,
  ) {}

  get file(): string {
    return this.source.file;
  }

  get size(): number {
    return this.source.size;
  }

  /** Of the next byte, from the start of the file. */
  get offset(): number {
    return this.#windowStart + this.#position;
  }

  /** Bytes of the file that are still to come. */
  get remaining(): number {
    return this.size - this.offset;
  }

  /** SHA-256, in hex, of everything taken so far. Call it once, at the end. */
  digest(): string {
    return this.#hash.update(this.#window.subarray(0, this.#position)).digest("hex");
  }

  /** True if `length` bytes can be taken without `fill`. */
  holds(length: number): boolean {
    return this.#window.length - this.#position >= length;
  }

  /**
   * Reads on until `length` bytes can be taken. `what` is named if the file has fewer.
   * @throws GGUF_INVALID
   */
  async fill(length: number, what: string): Promise<void> {
    if (this.holds(length)) return;
    const { offset } = this;
    if (length > this.remaining) {
      throw ggufInvalid(this.file, `ends in ${what}: ${length} bytes are needed at byte ${offset} of ${this.size}`, {
        offset,
      });
    }
    if (offset + length > this.limit) {
      throw ggufInvalid(this.file, `has a header of more than ${this.limit} bytes`, { offset });
    }
    this.#hash.update(this.#window.subarray(0, this.#position));
    const kept = this.#window.subarray(this.#position);
    const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.remaining) - kept.length;
    this.#window = Buffer.concat([kept, await this.source.read(offset + kept.length, wanted)]);
    this.#windowStart = offset;
    this.#position = 0;
  }

  /** The next `length` bytes, which `fill` has provided. They stay valid as long as they are referenced. */
  take(length: number): Buffer {
    const bytes = this.#window.subarray(this.#position, this.#position + length);
    this.#position += length;
    return bytes;
  }
}
