// ggml's blocks, as GGUF files hold them (ggml-common.h). Continues weights.cl.

#if FORMAT_q8_0
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 32 * (size_t)34;
  return load_half(block) * (float)as_char(block[2 + column % 32]);
}
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
#pragma unroll
  for (uint b = 0; b < 2; ++b) {
    global const uchar* const block = row + (2 * step + b) * (size_t)34;
    const float scale = load_half(block);
    weights[2 * b] = convert_float16(as_char16(load_even(block + 2))) * scale;
    weights[2 * b + 1] = convert_float16(as_char16(load_even(block + 18))) * scale;
  }
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
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
#pragma unroll
  for (uint b = 0; b < 2; ++b) {
    global const uchar* const block = row + (2 * step + b) * (size_t)(HEADER + (FIVE ? 20 : 16));
    const float scale = load_half(block), offset = MINIMUM ? load_half(block + 2) : scale * (FIVE ? -16.0f : -8.0f);
    const uint16 codes = convert_uint16(load_even(block + HEADER + (FIVE ? 4 : 0)));
#if FIVE
    const uint fifth = load_uint(block + HEADER);
    weights[2 * b] = scaled_codes((codes & 15) | spread_bits(fifth, 4), scale, offset);
    weights[2 * b + 1] = scaled_codes((codes >> 4) | spread_bits(fifth >> 16, 4), scale, offset);
#else
    weights[2 * b] = scaled_nibbles(codes, scale, offset);
    weights[2 * b + 1] = scaled_nibbles(codes >> 4, scale, offset);
#endif
  }
}

#elif FORMAT_q2_k
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)84;
  const uint c = column % 256, scale = block[c / 16];
  const uint code = bits_of(block[16 + c / 128 * 32 + c % 32], c / 32 % 4 * 2, 2);
  const float step = load_half(block + 80) * (float)(scale & 15), minimum = load_half(block + 82) * (float)(scale >> 4);
  return MULTIPLY_ADD((float)code, step, -minimum);
}
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)84;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const float unit = load_half(block + 80), minimum_unit = load_half(block + 82);
  const uint16 low = convert_uint16(load_even(block + 16 + quarter / 2 * 32)) >> shift;
  const uint16 high = convert_uint16(load_even(block + 32 + quarter / 2 * 32)) >> shift;
  const uint16 codes[4] = {low, high, low >> 2, high >> 2};
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const uint scale = block[4 * quarter + v];
    weights[v] = scaled_nibbles(codes[v] & 3, unit * (float)(scale & 15), -minimum_unit * (float)(scale >> 4));
  }
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
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)110;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const float unit = load_half(block + 108);
  const uint low_scales = load_uint(block + 96 + quarter % 2 * 4) >> quarter / 2 * 4 & 0x0f0f0f0f;
  const uchar4 scales = as_uchar4(low_scales | (load_uint(block + 104) >> 2 * quarter & 0x03030303) << 4);
  const float scale[4] = {(float)scales.x - 32.0f, (float)scales.y - 32.0f, (float)scales.z - 32.0f, (float)scales.w - 32.0f};
  // The third bit of each code beside its two others.
#pragma unroll
  for (uint half_step = 0; half_step < 2; ++half_step) {
    const uint16 code = convert_uint16(load_even(block + 32 + quarter / 2 * 32 + 16 * half_step)) >> shift;
    const uint16 mask = convert_uint16(load_even(block + 16 * half_step)) >> 2 * quarter;
    const float first = unit * scale[half_step], second = unit * scale[half_step + 2];
    weights[half_step] = scaled_nibbles((code & 3) | (mask & 1) << 2, first, -4.0f * first);
    weights[half_step + 2] = scaled_nibbles((code >> 2 & 3) | (mask & 2) << 1, second, -4.0f * second);
  }
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
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)(FORMAT_q4_k ? 144 : 176);
  const uint quarter = step % 4;
  global const uchar* const source = block + (FORMAT_q4_k ? 16 : 48) + 32 * quarter;
  const float unit = load_half(block), minimum_unit = load_half(block + 2);
#pragma unroll
  for (uint v = 0; v < 2; ++v) {
    const uint16 codes = convert_uint16(load_even(source + 16 * v));
#if FORMAT_q5_k
    const uint16 fifth = convert_uint16(load_even(block + 16 + 16 * v)) >> 2 * quarter;
#endif
#pragma unroll
    for (uint group = 0; group < 2; ++group) {
      const float scale = unit * k_scale(block + 4, 2 * quarter + group, 0);
      const float offset = -minimum_unit * k_scale(block + 4, 2 * quarter + group, 4);
#if FORMAT_q5_k
      weights[2 * group + v] = scaled_codes((codes >> 4 * group & 15) | (fifth >> group & 1) << 4, scale, offset);
#else
      weights[2 * group + v] = scaled_nibbles(codes >> 4 * group, scale, offset);
#endif
    }
  }
}

#elif FORMAT_q6_k
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 256 * (size_t)210;
  const uint c = column % 256;
  const uint low = bits_of(block[c / 128 * 64 + c % 64], c / 64 % 2 * 4, 4);
  const uint high = bits_of(block[128 + c / 128 * 32 + c % 32], c / 32 % 4 * 2, 2);
  return load_half(block + 208) * (float)as_char(block[192 + c / 16]) * ((float)(low | high << 4) - 32.0f);
}
#define HAS_STEP 1
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)210;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const float unit = load_half(block + 208);
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const uint16 low = convert_uint16(load_even(block + quarter / 2 * 64 + 16 * v)) >> shift & 15;
    const uint16 high = convert_uint16(load_even(block + 128 + quarter / 2 * 32 + v % 2 * 16)) >> (shift + v / 2 * 2) & 3;
    const float scale = unit * (float)as_char(block[192 + 4 * quarter + v]);
    weights[v] = scaled_codes(low | high << 4, scale, -32.0f * scale);
  }
}
#endif
