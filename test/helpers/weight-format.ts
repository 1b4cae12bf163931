/** native/backend/format.h once more, scalar and independent of the addon. */

export const NORMAL_FLOAT_4 = [
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
];

export function halfToNumber(half: number): number {
  const exponent = (half >> 10) & 31;
  const mantissa = half & 1023;
  const sign = half & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25));
}

/** The least float16 that is not below a number from 0 to 65504, by bisection over all of them. */
export function halfAbove(value: number): number {
  let low = 0;
  let high = 0x7bff;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (halfToNumber(middle) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** One row of 8bit: codes, then a float16 scale a block. */
export function quantizeRow8(weights: readonly number[], block: number): Uint8Array {
  const blocks = Math.ceil(weights.length / block);
  const row = new DataView(new ArrayBuffer(blocks * block + 2 * blocks));
  for (let b = 0; b < blocks; b++) {
    const part = weights.slice(b * block, (b + 1) * block);
    const half = halfAbove(Math.max(...part.map(Math.abs)));
    row.setUint16(blocks * block + 2 * b, half, true);
    const inverse = half === 0 ? 0 : Math.fround(127 / halfToNumber(half));
    part.forEach((weight, i) => {
      row.setInt8(b * block + i, roundHalfEven(Math.fround(weight * inverse)));
    });
  }
  return new Uint8Array(row.buffer);
}

export function dequantizeRow8(row: DataView, columns: number, block: number): number[] {
  const blocks = Math.ceil(columns / block);
  return Array.from({ length: columns }, (_, i) => {
    const scale = halfToNumber(row.getUint16(blocks * block + 2 * Math.floor(i / block), true));
    return row.getInt8(i) * (scale / 127);
  });
}

/** Code of column i of a 4bit row: nibble j of little-endian word k of a block is column j * 8 + k. */
export function code4(row: DataView, i: number): number {
  const word = row.getUint32(Math.floor(i / 64) * 32 + 4 * (i % 8), true);
  return (word >>> (4 * Math.floor((i % 64) / 8))) & 15;
}

export function scale4(row: DataView, columns: number, i: number): number {
  return halfToNumber(row.getUint16(Math.ceil(columns / 64) * 32 + 2 * Math.floor(i / 64), true));
}

export function dequantizeRow4(row: DataView, columns: number): number[] {
  return Array.from({ length: columns }, (_, i) => (NORMAL_FLOAT_4[code4(row, i)] ?? 0) * scale4(row, columns, i));
}

/** Bit by bit, from the definition of the polynomial. */
export function crc32c(data: Uint8Array): number {
  let value = 0xffffffff;
  for (const byte of data) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  }
  return (value ^ 0xffffffff) >>> 0;
}

/** A small seeded generator of normally distributed numbers. */
export function normalNumbers(count: number, deviation: number, seed: number): number[] {
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    return deviation * radius * Math.cos(2 * Math.PI * uniform());
  });
}
