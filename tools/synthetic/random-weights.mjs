/** Random weights, N(0, 0.02): the same seed gives the same ones. */

export const poolValues = 1 << 22;
const standardDeviation = 0.02;

/** xoshiro128**, seeded by splitmix32: returns uniform 32-bit integers. */
export function randomIntegers(seed) {
  let mix = seed >>> 0;
  const state = Uint32Array.from({ length: 4 }, () => {
    mix = (mix + 0x9e3779b9) >>> 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  });
  const rotate = (x, k) => (x << k) | (x >>> (32 - k));
  return () => {
    const result = Math.imul(rotate(Math.imul(state[1], 5), 7), 9) >>> 0;
    const t = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = rotate(state[3], 11);
    return result;
  };
}

/** `poolValues` values of N(0, 0.02), by Box and Muller. */
export function gaussianPool(random) {
  const values = new Float32Array(poolValues);
  for (let i = 0; i < poolValues; i += 2) {
    const radius = standardDeviation * Math.sqrt(-2 * Math.log((random() + 1) / 2 ** 32));
    const angle = (2 * Math.PI * random()) / 2 ** 32;
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** The values as the bytes of `dtype`, little endian, rounded to nearest. */
export function encode(values, dtype) {
  if (dtype === "f32") return Buffer.from(values.buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const output = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    output[i] = dtype === "bf16" ? (bits[i] + 0x7fff + ((bits[i] >>> 16) & 1)) >>> 16 : toHalf(values[i]);
  }
  return Buffer.from(output.buffer);
}

/** Bits of float16 for |value| < 65504. */
function toHalf(value) {
  const sign = value < 0 ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** -14) return sign | Math.round(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(magnitude));
  return sign | (((exponent + 15) << 10) + Math.round((magnitude / 2 ** exponent - 1) * 1024));
}
