// ggml's blocks, as GGUF files hold them (ggml-common.h). Continues weights.cl.

#if FORMAT_q8_0
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const block = row + column / 32 * (size_t)34;
  return load_half(block) * (float)as_char(block[2 + column % 32]);
}
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
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
#pragma unroll
  for (uint b = 0; b < 2; ++b) {
    global const uchar* const block = row + (2 * step + b) * (size_t)(HEADER + (FIVE ? 20 : 16));
    const float scale = load_half(block), offset = MINIMUM ? load_half(block + 2) : scale * (FIVE ? -16.0f : -8.0f);
    const uchar16 bytes = load_even(block + HEADER + (FIVE ? 4 : 0));
#if FIVE
    const uint fifth = load_uint(block + HEADER);
    weights[2 * b] = scaled_codes((bytes & (uchar16)(15)) | spread_bits(fifth, 4), scale, offset);
    weights[2 * b + 1] = scaled_codes(bytes >> (uchar16)(4) | spread_bits(fifth >> 16, 4), scale, offset);
#else
    const uint16 codes = convert_uint16(bytes);
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
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)84;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const uint packed = load_uint(block + 4 * quarter);
  const float4 scale = convert_float4(as_uchar4(packed & 0x0f0f0f0f)) * load_half(block + 80);
  const float4 offset = convert_float4(as_uchar4(packed >> 4 & 0x0f0f0f0f)) * -load_half(block + 82);
  const uchar16 low = shift_bytes(load_even(block + 16 + quarter / 2 * 32), shift);
  const uchar16 high = shift_bytes(load_even(block + 32 + quarter / 2 * 32), shift);
  weights[0] = scaled_codes(low & (uchar16)(3), scale.x, offset.x);
  weights[1] = scaled_codes(high & (uchar16)(3), scale.y, offset.y);
  weights[2] = scaled_codes(shift_bytes(low, 2) & (uchar16)(3), scale.z, offset.z);
  weights[3] = scaled_codes(shift_bytes(high, 2) & (uchar16)(3), scale.w, offset.w);
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
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)110;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const uint low_scales = load_uint(block + 96 + quarter % 2 * 4) >> quarter / 2 * 4 & 0x0f0f0f0f;
  const uchar4 scales = as_uchar4(low_scales | (load_uint(block + 104) >> 2 * quarter & 0x03030303) << 4);
  const float4 scale = (convert_float4(scales) - 32.0f) * load_half(block + 108), offset = -4.0f * scale;
  // Two bits of each code, and the third in place of the lowest.
  const uchar16 low = shift_bytes(load_even(block + 32 + quarter / 2 * 32), shift);
  const uchar16 high = shift_bytes(load_even(block + 48 + quarter / 2 * 32), shift);
  const uchar16 low_third = shift_bytes(load_even(block), 2 * quarter), high_third = shift_bytes(load_even(block + 16), 2 * quarter);
  const uchar16 three = (uchar16)(3), four = (uchar16)(4);
  weights[0] = scaled_codes((low & three) | (low_third << (uchar16)(2) & four), scale.x, offset.x);
  weights[1] = scaled_codes((high & three) | (high_third << (uchar16)(2) & four), scale.y, offset.y);
  weights[2] = scaled_codes((shift_bytes(low, 2) & three) | (low_third << (uchar16)(1) & four), scale.z, offset.z);
  weights[3] = scaled_codes((shift_bytes(high, 2) & three) | (high_third << (uchar16)(1) & four), scale.w, offset.w);
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
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)(FORMAT_q4_k ? 144 : 176);
  const uint quarter = step % 4;
  global const uchar* const source = block + (FORMAT_q4_k ? 16 : 48) + 32 * quarter;
  // Of the two groups: their scales, then their minima.
  const uint shift = quarter % 2 * 16;
  const uint a = load_uint(block + 4) >> shift, b = load_uint(block + 8) >> shift, c = load_uint(block + 12) >> shift;
  const uint scales = quarter < 2 ? a & 0x3f3f : (c & 0x0f0f) | (a >> 2 & 0x3030);
  const uint minima = quarter < 2 ? b & 0x3f3f : (c >> 4 & 0x0f0f) | (b >> 2 & 0x3030);
  const float unit = load_half(block), minimum_unit = -load_half(block + 2);
  const float4 factors = convert_float4(as_uchar4(scales | minima << 16)) * (float4)(unit, unit, minimum_unit, minimum_unit);
#pragma unroll
  for (uint v = 0; v < 2; ++v) {
    const uchar16 bytes = load_even(source + 16 * v);
#if FORMAT_q5_k
    const uchar16 fifth = shift_bytes(load_even(block + 16 + 16 * v), 2 * quarter);
    const uchar16 sixteen = (uchar16)(16);
    weights[v] = scaled_codes((bytes & (uchar16)(15)) | (fifth << (uchar16)(4) & sixteen), factors.x, factors.z);
    weights[v + 2] = scaled_codes(bytes >> (uchar16)(4) | (fifth << (uchar16)(3) & sixteen), factors.y, factors.w);
#else
    const uint16 codes = convert_uint16(bytes);
    weights[v] = scaled_nibbles(codes, factors.x, factors.z);
    weights[v + 2] = scaled_nibbles(codes >> 4, factors.y, factors.w);
#endif
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
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const block = row + step / 4 * (size_t)210;
  const uint quarter = step % 4, shift = quarter % 2 * 4;
  const float4 scale = convert_float4(as_char4(load_uint(block + 192 + 4 * quarter))) * load_half(block + 208), offset = -32.0f * scale;
  const float scales[4] = {scale.x, scale.y, scale.z, scale.w}, offsets[4] = {offset.x, offset.y, offset.z, offset.w};
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const uchar16 low = shift_bytes(load_even(block + quarter / 2 * 64 + 16 * v), shift) & (uchar16)(15);
    const uchar16 high = shift_bytes(load_even(block + 128 + quarter / 2 * 32 + v % 2 * 16), shift + v / 2 * 2) & (uchar16)(3);
    weights[v] = scaled_codes(low | high << (uchar16)(4), scales[v], offsets[v]);
  }
}
#endif
