/** No key has as many; a trie that goes in circles ends here. */
const MAX_KEY_BYTES = 256;
/** The longest that Unicode needs has 33. */
const MAX_REPLACEMENT_BYTES = 1024;

/**
 * The compiled replacements of a normalizer: the size of a double-array trie (four bytes), the trie, and the
 * replacements, each ended by a zero byte. A unit of the trie is 32 bits as darts-clone writes them
 * (github.com/s-yata/darts-clone, include/darts.h, DoubleArrayUnit): bits 0-7 and 31 the label, bit 8 whether a
 * key ends at its child 0, bits 10-30 the offset of its children, in units of 256 if bit 9 is set; a leaf has bit 31
 * and in the others the value, here the offset of the replacement.
 */
export class CharsMap {
  private readonly units: Uint32Array;
  private readonly replacements: Uint8Array;

  /** @throws Error if the sizes do not fit together. */
  constructor(bytes: Uint8Array) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const trieBytes = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (trieBytes === 0 || trieBytes % 4 !== 0 || trieBytes > bytes.length - 4) {
      throw new Error(`its table of replacements has ${bytes.length} bytes, but a trie of ${trieBytes}`);
    }
    this.units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.replacements = bytes.subarray(4 + trieBytes);
  }

  /**
   * The longest key that `text` has at `start`, and what replaces it.
   * @returns undefined if no key begins there.
   * @throws Error if the table is damaged.
   */
  match(text: Uint8Array, start: number): { end: number; replacement: Uint8Array } | undefined {
    let last: { end: number; value: number } | undefined;
    for (const key of this.keys(text, start)) last = key;
    return last && { end: last.end, replacement: this.replacement(last.value) };
  }

  /** What replaces the shortest key that `text` begins with: Hugging Face's library takes that one. */
  shortestMatch(text: Uint8Array): Uint8Array | undefined {
    for (const { value } of this.keys(text, 0)) return this.replacement(value);
    return undefined;
  }

  private *keys(text: Uint8Array, start: number): Generator<{ end: number; value: number }> {
    let node = childrenOf(this.unit(0));
    const last = Math.min(text.length, start + MAX_KEY_BYTES);
    for (let i = start; i < last; i++) {
      const label = text[i] as number;
      // A label of 0 leads to the leaf of a key.
      if (label === 0) return;
      node ^= label;
      if (node >= this.units.length) return;
      const unit = this.unit(node);
      if ((unit & 0x800000ff) !== label) return;
      node ^= childrenOf(unit);
      if ((unit >>> 8) & 1) yield { end: i + 1, value: this.unit(node) & 0x7fffffff };
    }
  }

  private replacement(start: number): Uint8Array {
    const end = this.replacements.indexOf(0, start);
    if (end < 0) throw outside();
    if (end - start > MAX_REPLACEMENT_BYTES) {
      throw new Error(`its table of replacements has one of ${end - start} bytes, more than ${MAX_REPLACEMENT_BYTES}`);
    }
    return this.replacements.subarray(start, end);
  }

  private unit(index: number): number {
    const unit = this.units[index];
    if (unit === undefined) throw outside();
    return unit;
  }
}

function childrenOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function outside(): Error {
  return new Error("its table of replacements points outside itself");
}
