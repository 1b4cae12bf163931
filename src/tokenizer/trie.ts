const EMPTY = -1;

/**
 * Strings and a number for each, found by their beginnings. One hash table of (node, UTF-16 unit) pairs in typed
 * arrays: a vocabulary of 250 000 tokens takes some 20 MB, where objects or maps would take hundreds.
 */
export class Trie {
  private capacity = 1024;
  private size = 0;
  private nodes = new Int32Array(this.capacity).fill(EMPTY);
  private units = new Uint16Array(this.capacity);
  private children = new Int32Array(this.capacity);
  /** By node; EMPTY where no string ends. The root is node 0. */
  private readonly values: number[] = [EMPTY];

  /** @param value at least 0. A string that is there already keeps its value. */
  add(text: string, value: number): void {
    let node = 0;
    for (let i = 0; i < text.length; i++) node = this.childOrNew(node, text.charCodeAt(i));
    if (this.values[node] === EMPTY) this.values[node] = value;
  }

  /** Node after `unit`; -1 if no string goes on so. */
  child(node: number, unit: number): number {
    const slot = this.slot(node, unit);
    return this.nodes[slot] === EMPTY ? EMPTY : (this.children[slot] as number);
  }

  /** Value of the string that ends in `node`; -1 if none does. */
  value(node: number): number {
    return this.values[node] as number;
  }

  /** End of the longest string that `text` has at `start`, or `start`. */
  longestMatch(text: string, start: number): number {
    let end = start;
    let node = 0;
    for (let i = start; i < text.length; i++) {
      node = this.child(node, text.charCodeAt(i));
      if (node === EMPTY) break;
      if (this.values[node] !== EMPTY) end = i + 1;
    }
    return end;
  }

  private childOrNew(node: number, unit: number): number {
    let slot = this.slot(node, unit);
    if (this.nodes[slot] !== EMPTY) return this.children[slot] as number;
    if (this.size * 2 >= this.capacity) {
      this.grow();
      slot = this.slot(node, unit);
    }
    this.size++;
    this.values.push(EMPTY);
    this.nodes[slot] = node;
    this.units[slot] = unit;
    this.children[slot] = this.size;
    return this.size;
  }

  private slot(node: number, unit: number): number {
    const mask = this.capacity - 1;
    let hash = Math.imul(node ^ Math.imul(unit, 0x9e3779b1), 0x85ebca6b);
    hash = (hash ^ (hash >>> 15)) & mask;
    while (this.nodes[hash] !== EMPTY && (this.nodes[hash] !== node || this.units[hash] !== unit)) {
      hash = (hash + 1) & mask;
    }
    return hash;
  }

  private grow(): void {
    const { nodes, units, children } = this;
    this.capacity *= 2;
    this.nodes = new Int32Array(this.capacity).fill(EMPTY);
    this.units = new Uint16Array(this.capacity);
    this.children = new Int32Array(this.capacity);
    for (let i = 0; i < nodes.length; i++) {
      if (nodes[i] === EMPTY) continue;
      const slot = this.slot(nodes[i] as number, units[i] as number);
      this.nodes[slot] = nodes[i] as number;
      this.units[slot] = units[i] as number;
      this.children[slot] = children[i] as number;
    }
  }
}
