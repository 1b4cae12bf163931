import { randomBytes } from "node:crypto";

/** Seeds are whole numbers from 0 to this. */
export const MAX_SEED = Number.MAX_SAFE_INTEGER;

/**
 * A generator of numbers in [0, 1) with 53 random bits: xoshiro128** (Blackman and Vigna, 2018), two outputs a number,
 * its state filled by SplitMix64 from the seed. The same seed gives the same numbers on every platform.
 */
export function createRandom(seed: number): () => number {
  const state = seedState(seed);
  let [a, b, c, d] = state;
  const next = (): number => {
    const scrambled = Math.imul(b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result >>> 0;
  };
  return () => {
    const high = next() >>> 5;
    const low = next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  };
}

/** A seed from the operating system's entropy. */
export function randomSeed(): number {
  return randomBytes(6).readUIntBE(0, 6);
}

/** Two outputs of SplitMix64 (Steele, Lea and Flood, 2014), as four 32-bit words, low word first. */
function seedState(seed: number): [number, number, number, number] {
  let counter = BigInt(seed);
  const next = (): bigint => {
    counter = BigInt.asUintN(64, counter + 0x9e3779b97f4a7c15n);
    let z = counter;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  const [first, second] = [next(), next()];
  const low = (value: bigint): number => Number(BigInt.asIntN(32, value));
  return [low(first), low(first >> 32n), low(second), low(second >> 32n)];
}
