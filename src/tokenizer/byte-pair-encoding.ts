/**
 * When text[start, middle) and text[middle, end) are joined: pairs of the lowest number first. Undefined if never.
 */
export type JoinOrder = (text: string, start: number, middle: number, end: number) => number | undefined;

/**
 * Byte pair encoding: joins neighbouring symbols, always the pair that comes first in `order` and of equals the
 * leftmost, until no pair is left. Takes O(n log n) steps for n symbols.
 *
 * @param starts where the symbols of `text` begin, ascending from 0.
 * @param frozen of symbols (by index in `starts`) that are never joined; all are joined if absent.
 * @returns where the joined symbols begin.
 */
export function joinSymbols(
  text: string,
  starts: readonly number[],
  order: JoinOrder,
  frozen?: readonly boolean[],
): number[] {
  const count = starts.length;
  const next = Int32Array.from({ length: count }, (_, i) => i + 1);
  const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
  const joined = new Uint8Array(count);
  const endOf = (symbol: number): number => {
    const following = next[symbol] as number;
    return following < count ? (starts[following] as number) : text.length;
  };
  const queue = new PairQueue();
  const consider = (left: number): void => {
    const right = left < 0 ? count : (next[left] as number);
    if (right >= count || frozen?.[left] || frozen?.[right]) return;
    const end = endOf(right);
    const rank = order(text, starts[left] as number, starts[right] as number, end);
    if (rank !== undefined) queue.push({ rank, left, right, end });
  };

  for (let symbol = 0; symbol + 1 < count; symbol++) consider(symbol);
  for (let pair = queue.pop(); pair !== undefined; pair = queue.pop()) {
    const { left, right, end } = pair;
    // Symbols have been joined since the pair was found.
    if (joined[left] || next[left] !== right || endOf(right) !== end) continue;
    const following = next[right] as number;
    joined[right] = 1;
    next[left] = following;
    if (following < count) previous[following] = left;
    consider(previous[left] as number);
    consider(left);
  }
  return starts.filter((_, symbol) => !joined[symbol]);
}

interface Pair {
  rank: number;
  left: number;
  right: number;
  end: number;
}

/** A binary heap: lowest rank first, then leftmost. */
class PairQueue {
  private readonly heap: Pair[] = [];

  push(pair: Pair): void {
    const { heap } = this;
    let at = heap.length;
    heap.push(pair);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!comesBefore(pair, heap[parent] as Pair)) break;
      heap[at] = heap[parent] as Pair;
      at = parent;
    }
    heap[at] = pair;
  }

  pop(): Pair | undefined {
    const { heap } = this;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && comesBefore(heap[child + 1] as Pair, heap[child] as Pair)) child++;
      if (!comesBefore(heap[child] as Pair, last)) break;
      heap[at] = heap[child] as Pair;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function comesBefore(a: Pair, b: Pair): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.left < b.left);
}
