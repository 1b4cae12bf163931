import { LayerstreamError } from "../../errors.js";

const MAX_STRING_BYTES = 1024 * 1024;
const MAX_NAME_BYTES = 256;
const MAX_INTEGER_BYTES = 16;

/** Thrown where the bytes end before the pickle does. */
export class PickleTooShort extends Error {
  override readonly name = "PickleTooShort";
}

/** The operands of opcodes, and errors that say where they stand. */
export class PickleReader {
  /** Where the opcode stands that is executed. */
  #opcodeAt: number;

  constructor(
    private readonly bytes: Buffer,
    /** Offset in `bytes` of what is read next. */
    public at: number,
    private readonly file: string,
    /** Offset of `bytes` in the file. */
    private readonly base: number,
  ) {
    this.#opcodeAt = at;
  }

  opcode(): string {
    this.#opcodeAt = this.at;
    return String.fromCharCode(this.byte());
  }

  byte(): number {
    const byte = this.bytes[this.at];
    if (byte === undefined) throw new PickleTooShort();
    this.at++;
    return byte;
  }

  word(): number {
    return this.take(4).readUInt32LE(0);
  }

  take(count: number): Buffer {
    const end = this.at + count;
    if (end > this.bytes.length) throw new PickleTooShort();
    const taken = this.bytes.subarray(this.at, end);
    this.at = end;
    return taken;
  }

  string(length: number, encoding: "utf8" | "latin1"): string {
    if (length > MAX_STRING_BYTES) {
      throw this.invalid(`has a string of ${length} bytes; the limit is ${MAX_STRING_BYTES}`);
    }
    return this.take(length).toString(encoding);
  }

  /** Up to a newline. */
  line(): string {
    const end = this.bytes.subarray(this.at, this.at + MAX_NAME_BYTES + 1).indexOf(0x0a);
    if (end >= 0) return this.take(end + 1).toString("utf8", 0, end);
    if (this.bytes.length - this.at > MAX_NAME_BYTES) {
      throw this.invalid(`has a name of more than ${MAX_NAME_BYTES} bytes`);
    }
    throw new PickleTooShort();
  }

  /** Little-endian two's complement; a bigint where a number would not be exact. */
  integer(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw this.invalid(`has an integer of ${length} bytes`);
    let bits = 0n;
    for (const [index, byte] of this.take(length).entries()) bits |= BigInt(byte) << BigInt(8 * index);
    const value = BigInt.asIntN(8 * length, bits);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  invalid(what: string): LayerstreamError {
    return this.#error("PICKLE_INVALID", what, "The file is damaged or no PyTorch checkpoint: download it again.");
  }

  refused(what: string): LayerstreamError {
    const remedy = "Do not use this file unless you trust its source; nothing in it was run.";
    return this.#error("PICKLE_REFUSED", what, remedy);
  }

  #error(code: "PICKLE_REFUSED" | "PICKLE_INVALID", what: string, remedy: string): LayerstreamError {
    const { file } = this;
    const offset = this.base + this.#opcodeAt;
    return new LayerstreamError(code, `${file}: the pickle ${what} (byte ${offset}).`, { file, offset, remedy });
  }
}
