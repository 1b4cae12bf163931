/** Values of the codes of small floating-point formats. */

/** E4M3 without infinities (Micikevicius et al., FP8 Formats for Deep Learning, 2022): bias 7, S.1111.111 is NaN. */
export const E4M3_LEVELS = Float32Array.from({ length: 256 }, (_, code) => {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  if (exponent === 15 && mantissa === 7) return Number.NaN;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10));
});

/** E2M1 (OCP Microscaling Formats 1.0); codes have four bits. */
export const E2M1_LEVELS = Float32Array.from({ length: 256 }, (_, code) => {
  const magnitude = [0, 0.5, 1, 1.5, 2, 3, 4, 6][code & 7] as number;
  return code & 8 ? -magnitude : magnitude;
});

/** E8M0 (OCP Microscaling Formats 1.0): powers of two with a bias of 127; 255 is NaN. */
export const E8M0_LEVELS = Float32Array.from({ length: 256 }, (_, code) =>
  code === 255 ? Number.NaN : 2 ** (code - 127),
);
