/** The wire format of protocol buffers, as far as SentencePiece models use it, read from files that nobody vouches for. */

/** What is wrong, with the byte where it is, to be put after the file's name. */
export class ProtobufError extends Error {
  override readonly name = "ProtobufError";
  constructor(
    what: string,
    readonly offset: number,
  ) {
    super(`${what} at byte ${offset}`);
  }
}

/** One field of a message. `varint` or `bytes` has the value, as the wire type says. */
export interface ProtobufField {
  number: number;
  /** 0: varint. 1, 5: eight and four bytes. 2: a string, bytes or a message. */
  wireType: 0 | 1 | 2 | 5;
  /** The low 32 bits, signed, as every int32, enum and bool is read. */
  varint: number;
  /** A view of the value. */
  bytes: Uint8Array;
  /** Of the value in the file. */
  offset: number;
}

const NO_BYTES = new Uint8Array(0);

/**
 * The fields of the message in `bytes`, in the order of the file. Nested messages are not looked into: the caller
 * reads those that its schema has, so nothing here recurses. Nothing is copied or allocated by a length in the file.
 *
 * @param base offset of `bytes` in the file, for errors.
 * @throws ProtobufError for what is cut off, overlong, of an unknown wire type, or a group (which no schema uses).
 */
export function* readFields(bytes: Uint8Array, base = 0): Generator<ProtobufField> {
  let at = 0;
  const fail = (what: string, where = at): ProtobufError => new ProtobufError(what, base + where);

  /** Of the number read last: it has more than 32 bits. */
  let isLong = false;
  /** The low 32 bits; the others must still be a valid encoding. */
  const readVarint = (): number => {
    const start = at;
    let low = 0;
    isLong = false;
    for (let index = 0; index < 10; index++) {
      const byte = bytes[at];
      if (byte === undefined) throw fail("a number is cut off", start);
      at++;
      if (index < 5) low |= (byte & 0x7f) << (7 * index);
      if (index === 4 ? (byte & 0x70) !== 0 : index > 4 && (byte & 0x7f) !== 0) isLong = true;
      if (index === 9 && byte > 1) throw fail("a number has more than 64 bits", start);
      if (byte < 0x80) return low;
    }
    throw fail("a number has more than 64 bits", start);
  };

  const readBytes = (length: number): Uint8Array => {
    if (isLong || length > bytes.length - at) {
      const size = isLong ? "2^32 or more" : length;
      throw fail(`a value of ${size} bytes does not fit into the ${bytes.length - at} that are left`);
    }
    at += length;
    return bytes.subarray(at - length, at);
  };

  while (at < bytes.length) {
    const start = at;
    const tag = readVarint() >>> 0;
    const number = tag >>> 3;
    if (number === 0 || isLong) throw fail(`there is no field ${number}`, start);
    const wireType = tag & 7;
    if (wireType === 0) {
      const offset = base + at;
      yield { number, wireType, varint: readVarint(), bytes: NO_BYTES, offset };
    } else if (wireType === 1 || wireType === 5) {
      const offset = base + at;
      yield { number, wireType, varint: 0, bytes: readBytes(wireType === 1 ? 8 : 4), offset };
    } else if (wireType === 2) {
      const length = readVarint() >>> 0;
      const offset = base + at;
      yield { number, wireType, varint: 0, bytes: readBytes(length), offset };
    } else {
      throw fail(`the wire type ${wireType} is not one of SentencePiece models`, start);
    }
  }
}
