/** Cases of a target: each a function of seed and number alone. */

const EDGES = [
  0n,
  1n,
  2n,
  7n,
  255n,
  0x7fffn,
  0xffffn,
  0x7fff_ffffn,
  0xffff_ffffn,
  1n << 32n,
  1n << 53n,
  1n << 60n,
  (1n << 64n) - 1n,
];

/** Case `index` of a target: what its `generate` makes, or one of its seeds with a few changes. */
export function makeCase(target, seed, index) {
  const random = generator(seed ^ Math.imul(index + 1, 0x9e3779b1));
  if (target.generate && random(3) === 0) return target.generate(random);
  let bytes = Buffer.from(pick(target.seeds, random));
  for (let changes = 1 + random(1 + random(8)); changes > 0; changes--)
    bytes = pick(MUTATIONS, random)(bytes, random, target);
  return bytes;
}

/** mulberry32: `random(n)` is a whole number below n. */
function generator(seed) {
  let state = seed | 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

export function pick(list, random) {
  return list[random(list.length)];
}

const MUTATIONS = [
  flipBit,
  setByte,
  setNumber,
  setNumber,
  remove,
  duplicate,
  insertNoise,
  insertToken,
  truncate,
  spliceWithSeed,
  swap,
];

function flipBit(bytes, random) {
  if (bytes.length > 0) bytes[random(bytes.length)] ^= 1 << random(8);
  return bytes;
}

function setByte(bytes, random) {
  if (bytes.length > 0) bytes[random(bytes.length)] = pick([0, 1, 0x7f, 0x80, 0xff, 0x0a, random(256)], random);
  return bytes;
}

/** A little-endian number at the edge of something, in the place of 1 to 8 bytes. */
function setNumber(bytes, random) {
  const length = pick([1, 2, 4, 8], random);
  if (bytes.length < length) return bytes;
  const value = pick([...EDGES, BigInt(bytes.length), BigInt(bytes.length - 1), BigInt(random(2 ** 31))], random);
  const at = random(bytes.length - length + 1);
  for (let i = 0; i < length; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
  return bytes;
}

function range(bytes, random) {
  const start = random(bytes.length + 1);
  return [start, start + random(Math.min(bytes.length - start, 1 + random(256)) + 1)];
}

function remove(bytes, random) {
  const [start, end] = range(bytes, random);
  return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
}

function duplicate(bytes, random) {
  const [start, end] = range(bytes, random);
  const copies = Array(1 + random(1 + random(200))).fill(bytes.subarray(start, end));
  return Buffer.concat([bytes.subarray(0, end), ...copies, bytes.subarray(end)]);
}

function insert(bytes, random, added) {
  const at = random(bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, at), added, bytes.subarray(at)]);
}

function insertNoise(bytes, random) {
  return insert(bytes, random, Buffer.from(Array.from({ length: 1 + random(32) }, () => random(256))));
}

function insertToken(bytes, random, { tokens = [] }) {
  return tokens.length > 0 ? insert(bytes, random, Buffer.from(pick(tokens, random), "latin1")) : bytes;
}

function truncate(bytes, random) {
  return bytes.subarray(0, random(bytes.length + 1));
}

function spliceWithSeed(bytes, random, { seeds }) {
  const other = pick(seeds, random);
  return Buffer.concat([bytes.subarray(0, random(bytes.length + 1)), other.subarray(random(other.length + 1))]);
}

function swap(bytes, random) {
  const [start, end] = range(bytes, random);
  const at = random(bytes.length + 1);
  bytes.copyWithin(at, start, end);
  return bytes;
}
