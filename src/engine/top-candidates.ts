import { native } from "../native/binding.js";

/** A radix search over 32-bit keys: each pass looks at the bits of `mask` from `shift` on, those of `settled` are known. */
const PASSES = [
  { shift: 21, mask: 0x7ff, settled: 0 },
  { shift: 10, mask: 0x7ff, settled: -1 << 21 },
  { shift: 0, mask: 0x3ff, settled: -1 << 10 },
] as const;
const BUCKETS = 2048;
/** Turns signed order into unsigned order. */
const SIGN = -0x80000000;

/**
 * Keeps the best candidates without sorting: three passes over histograms of the scores' bits find the exact score at
 * the boundary. Allocates nothing after construction.
 */
export class TopCandidates {
  /** Token ids, ascending; the first `count` are candidates. */
  readonly tokens: Uint32Array;
  count = 0;
  private readonly histogram = new Float64Array(BUCKETS);
  private readonly bits: Int32Array;

  /** @param scores finite or -Infinity; read at each call. */
  constructor(private readonly scores: Float32Array) {
    this.tokens = new Uint32Array(scores.length);
    this.bits = new Int32Array(scores.buffer, scores.byteOffset, scores.length);
  }

  /** Makes every token a candidate. */
  reset(): void {
    if (this.count === this.tokens.length) return;
    this.count = this.tokens.length;
    for (let i = 0; i < this.count; i++) this.tokens[i] = i;
  }

  /** Of all tokens, makes those candidates that have the `count` best scores; of equal ones at the boundary, lower ids. */
  best(count: number): void {
    this.count = native().topCandidates(this.scores, count, this.tokens);
    this.keep(count);
  }

  /**
   * Keeps the fewest best candidates whose weights sum to `target` or more, at least one. Of candidates with the same
   * score at the boundary, lower ids stay.
   * @param weights of each token, growing with its score; without them each candidate counts 1.
   */
  keep(target: number, weights?: Float64Array): void {
    let boundary = SIGN;
    let above = 0;
    for (const pass of PASSES) {
      this.fillHistogram(pass, boundary, weights);
      const bucket = this.boundaryBucket(target - above);
      for (let i = bucket + 1; i < BUCKETS; i++) above += this.histogram[i] as number;
      boundary ^= bucket << pass.shift;
      this.dropBelow(boundary);
    }
    this.dropTies(boundary, target - above, weights);
  }

  /** Weight of the candidates in each bucket, of those whose settled bits are the boundary's. */
  private fillHistogram(pass: (typeof PASSES)[number], boundary: number, weights: Float64Array | undefined): void {
    const { tokens, histogram, bits, count } = this;
    const { shift, mask, settled } = pass;
    histogram.fill(0);
    for (let i = 0; i < count; i++) {
      const token = tokens[i] as number;
      const key = keyOf(bits[token] as number);
      if (((key ^ boundary) & settled) !== 0) continue;
      const bucket = ((key ^ SIGN) >>> shift) & mask;
      histogram[bucket] = (histogram[bucket] as number) + (weights ? (weights[token] as number) : 1);
    }
  }

  /** The bucket in which the weight, summed from the top, reaches `target`; the last with any weight if rounding misses it. */
  private boundaryBucket(target: number): number {
    let sum = 0;
    let bucket = 0;
    for (let i = BUCKETS - 1; i >= 0; i--) {
      const weight = this.histogram[i] as number;
      if (weight === 0) continue;
      bucket = i;
      sum += weight;
      if (sum >= target) break;
    }
    return bucket;
  }

  private dropBelow(boundary: number): void {
    const { tokens, bits, count } = this;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const token = tokens[i] as number;
      tokens[kept] = token;
      if (keyOf(bits[token] as number) >= boundary) kept++;
    }
    this.count = kept;
  }

  /** Of the candidates at the boundary, keeps the first ones that `weight` needs. */
  private dropTies(boundary: number, weight: number, weights: Float64Array | undefined): void {
    const { tokens, bits, count } = this;
    let kept = 0;
    let left = weight;
    for (let i = 0; i < count; i++) {
      const token = tokens[i] as number;
      if (keyOf(bits[token] as number) === boundary) {
        if (left <= 0 && left !== weight) continue;
        left -= weights ? (weights[token] as number) : 1;
      }
      tokens[kept++] = token;
    }
    this.count = kept;
  }
}

/** Signed integers in the order of the floats with these bits: negative floats have theirs inverted below the sign. */
function keyOf(bits: number): number {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
