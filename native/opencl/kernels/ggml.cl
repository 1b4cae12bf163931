// ggml's blocks, as GGUF files hold them (ggml-common.h). Continues weights.cl.

#if FORMAT_q8_0
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 32 * (size_t)34;
  return load_half(block) * (float)as_char(block[2 + column % 32]);
}

#elif FORMAT_q4_0 || FORMAT_q4_1 || FORMAT_q5_0 || FORMAT_q5_1
// float16 d, float16 m if there is a minimum, fifth bits in a uint32, 16 bytes of nibbles.
#define FIVE (FORMAT_q5_0 || FORMAT_q5_1)
#define MINIMUM (FORMAT_q4_1 || FORMAT_q5_1)
#define HEADER (MINIMUM ? 4 : 2)
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 32 * (size_t)(HEADER + (FIVE ? 20 : 16));
  const uint c = column % 32;
  uint code = nibble(block + HEADER + (FIVE ? 4 : 0), c);
  if (FIVE) code |= bits_of(block[HEADER + c / 8], c % 8, 1) << 4;
  const float scale = load_half(block);
  if (MINIMUM) return MULTIPLY_ADD((float)code, scale, load_half(block + 2));
  return ((float)code - (FIVE ? 16.0f : 8.0f)) * scale;
}

#elif FORMAT_q2_k
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)84;
  const uint c = column % 256, scale = block[c / 16];
  const uint code = bits_of(block[16 + c / 128 * 32 + c % 32], c / 32 % 4 * 2, 2);
  const float step = load_half(block + 80) * (float)(scale & 15), minimum = load_half(block + 82) * (float)(scale >> 4);
  return MULTIPLY_ADD((float)code, step, -minimum);
}

#elif FORMAT_q3_k
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)110;
  const uint c = column % 256, group = c / 16;
  const uint low = bits_of(block[32 + c / 128 * 32 + c % 32], c / 32 % 4 * 2, 2);
  const float code = (float)low - (bits_of(block[c % 32], c / 32, 1) == 0 ? 4.0f : 0.0f);
  const uint scale = bits_of(block[96 + group % 8], group / 8 * 4, 4) | bits_of(block[104 + group % 4], group / 4 * 2, 2) << 4;
  return load_half(block + 108) * ((float)scale - 32.0f) * code;
}

#elif FORMAT_q4_k || FORMAT_q5_k
// Scale (first = 0) or minimum (first = 4) of a group of 32.
INLINE float k_scale(global const uchar* scales, uint group, uint first) {
  if (group < 4) return (float)(scales[first + group] & 63);
  return (float)(bits_of(scales[8 + group - 4], first, 4) | scales[first + group - 4] >> 6 << 4);
}
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)(FORMAT_q4_k ? 144 : 176);
  global const uchar* const codes = block + (FORMAT_q4_k ? 16 : 48);
  const uint c = column % 256, group = c / 32;
  uint code = bits_of(codes[c / 64 * 32 + c % 32], c / 32 % 2 * 4, 4);
  if (FORMAT_q5_k) code |= bits_of(block[16 + c % 32], group, 1) << 4;
  const float step = load_half(block) * k_scale(block + 4, group, 0), minimum = load_half(block + 2) * k_scale(block + 4, group, 4);
  return MULTIPLY_ADD((float)code, step, -minimum);
}

#elif FORMAT_q6_k
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)210;
  const uint c = column % 256;
  const uint low = bits_of(block[c / 128 * 64 + c % 64], c / 64 % 2 * 4, 4);
  const uint high = bits_of(block[128 + c / 128 * 32 + c % 32], c / 32 % 4 * 2, 2);
  return load_half(block + 208) * (float)as_char(block[192 + c / 16]) * ((float)(low | high << 4) - 32.0f);
}
#endif
