// Rows of every weight format (backend/format.h; ggml's blocks: ggml-common.h), for a program that is built for one of them:
//   FORMAT_x   1 for format x
//   SHORT_BLOCKS  1 if a step of 64 columns may have more than one scale
//   ALIGNMENT  bytes that every row and its first step begin at a multiple of: 1, 4 or 16
// decode_one is the definition, decode_step a faster way to 64 columns that all exist. Where a work item takes all steps of a row
// (LANES 1), `state` is what a step leaves for the next.

typedef struct {
  uint columns;
  uint block;
  int block_shift;  // log2 of the block, or -1
  uint groups;      // that have scales
  uint code_bytes;  // of a row
} Row;

INLINE uint group_of(const Row* layout, uint column) {
  return layout->block_shift >= 0 ? column >> layout->block_shift : column / layout->block;
}

INLINE uchar16 load_bytes(global const uchar* source) {
#if ALIGNMENT == 16
  return as_uchar16(*(global const uint4*)source);
#elif ALIGNMENT == 4
  return as_uchar16(vload4(0, (global const uint*)source));
#else
  return vload16(0, source);
#endif
}

// Sixteen bytes from an even place in a row.
INLINE uchar16 load_even(global const uchar* source) {
#if ALIGNMENT == 1
  return vload16(0, source);
#else
  return as_uchar16(vload8(0, (global const ushort*)source));
#endif
}

// Bits [first, first + count) of a byte.
INLINE uint bits_of(uint byte, uint first, uint count) { return byte >> first & ((1u << count) - 1); }

// The nibble of a column in steps whose byte l has columns l and 16 + l of 32.
INLINE uint nibble(global const uchar* codes, uint column) {
  return bits_of(codes[column / 32 * 16 + column % 16], column / 16 % 2 * 4, 4);
}

// Columns 0-15, 16-31, 32-47 and 48-63 of 32 such bytes, in the low four bits of each; what is above them is undefined.
INLINE void nibbles(global const uchar* codes, uint16 output[4]) {
  output[0] = convert_uint16(load_bytes(codes));
  output[1] = output[0] >> 4;
  output[2] = convert_uint16(load_bytes(codes + 16));
  output[3] = output[2] >> 4;
}

constant float kNormalFloat4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

constant float kFloat4[16] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f,
                              -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

// Entries of a table by the low four bits of `index`.
#if HOST_PROCESSOR && defined(__AVX512F__)
#define FAST_TABLES 1
// Compilers do not find the one instruction that does it. Its types are others of the same size.
typedef union {
  float16 vector;
  float elements __attribute__((vector_size(64)));
} SixteenFloats;
typedef union {
  uint16 vector;
  int elements __attribute__((vector_size(64)));
} SixteenIntegers;
INLINE float16 look_up(float16 table, uint16 index) {
  SixteenFloats levels;
  SixteenIntegers indices;
  levels.vector = table;
  indices.vector = index;
  levels.elements = __builtin_ia32_permvarsf512(levels.elements, indices.elements);
  return levels.vector;
}
typedef union {
  ushort16 vector;
  short elements __attribute__((vector_size(32)));
} SixteenHalves;
INLINE float16 convert_halves(ushort16 halves) {
  SixteenHalves input;
  SixteenFloats output;
  input.vector = halves;
  output.vector = (float16)(0.0f);
  output.elements = __builtin_ia32_vcvtph2ps512_mask(input.elements, output.elements, (unsigned short)0xffff, 4);
  return output.vector;
}
#else
INLINE float16 look_up(float16 table, uint16 index) { return shuffle(table, index); }
#endif

// code * scale + offset for the low four bits of each code.
INLINE float16 scaled_nibbles(uint16 codes, float scale, float offset) {
#if FAST_TABLES
  const float16 levels = (float16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return look_up(MULTIPLY_ADD(levels, (float16)(scale), (float16)(offset)), codes);
#else
  return MULTIPLY_ADD(convert_float16(codes & 15), (float16)(scale), (float16)(offset));
#endif
}

// code * scale + offset for all bits.
INLINE float16 scaled_codes(uchar16 codes, float scale, float offset) {
  return MULTIPLY_ADD(convert_float16(codes), (float16)(scale), (float16)(offset));
}

// Each byte shifted right; above, bits of its neighbour come in.
INLINE uchar16 shift_bytes(uchar16 bytes, uint count) { return as_uchar16(as_ushort8(bytes) >> (ushort8)((ushort)count)); }

// Bit i of `bits`, for the sixteen i, in place of bit `place`.
INLINE uchar16 spread_bits(uint bits, uint place) {
  const uchar8 each = (uchar8)(1, 2, 4, 8, 16, 32, 64, 128);
  const uchar16 pairs = (uchar16)((uchar8)((uchar)bits), (uchar8)((uchar)(bits >> 8))) & (uchar16)(each, each);
  return as_uchar16(pairs != (uchar16)(0)) & (uchar16)((uchar)(1u << place));
}

#if FORMAT_f32
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) { return load_float(row + 4 * (size_t)column); }
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + 256 * (size_t)step;
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const float4 a = as_float4(load_bytes(source + 64 * v)), b = as_float4(load_bytes(source + 64 * v + 16));
    const float4 c = as_float4(load_bytes(source + 64 * v + 32)), d = as_float4(load_bytes(source + 64 * v + 48));
    weights[v] = (float16)(a, b, c, d);
  }
}

#elif FORMAT_f16
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) { return load_half(row + 2 * (size_t)column); }
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + 128 * (size_t)step;
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
#if HOST_PROCESSOR
    weights[v] = vload_half16(0, (global const half*)(source + 32 * v));
#else
    weights[v].lo = half_values(as_ushort8(load_bytes(source + 32 * v)));
    weights[v].hi = half_values(as_ushort8(load_bytes(source + 32 * v + 16)));
#endif
  }
}

#elif FORMAT_bf16
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  return as_float(load_ushort(row + 2 * (size_t)column) << 16);
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + 128 * (size_t)step;
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const ushort8 low = as_ushort8(load_bytes(source + 32 * v)), high = as_ushort8(load_bytes(source + 32 * v + 16));
    weights[v] = as_float16(convert_uint16((ushort16)(low, high)) << 16);
  }
}

#elif FORMAT_8bit
INLINE float scale_at(const Row* layout, global const uchar* row, uint group) {
  return load_half(row + layout->code_bytes + 2 * (size_t)group) / 127.0f;
}
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  return (float)as_char(row[column]) * scale_at(layout, row, group_of(layout, column));
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + 64 * (size_t)step;
  const float first = scale_at(layout, row, 64 * step >> layout->block_shift);
#if SHORT_BLOCKS
  const float second = scale_at(layout, row, 2 * step + 1);
#else
  const float second = first;
#endif
  weights[0] = convert_float16(as_char16(load_bytes(source))) * first;
  weights[1] = convert_float16(as_char16(load_bytes(source + 16))) * first;
  weights[2] = convert_float16(as_char16(load_bytes(source + 32))) * second;
  weights[3] = convert_float16(as_char16(load_bytes(source + 48))) * second;
}

#elif FORMAT_4bit
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  const uint within = column % 64;
  const uint lane = load_uint(row + column / 64 * 32 + 4 * (within % 8));
  return kNormalFloat4[lane >> 4 * (within / 8) & 15] * load_half(row + layout->code_bytes + 2 * (size_t)(column / 64));
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + 32 * (size_t)step;
  const float16 levels = vload16(0, kNormalFloat4) * load_half(row + layout->code_bytes + 2 * (size_t)step);
#if HOST_PROCESSOR
  const uint8 lanes = vload8(0, (global const uint*)source);
#else
  const uint8 lanes = (uint8)(as_uint4(load_bytes(source)), as_uint4(load_bytes(source + 16)));
#endif
  const uint16 codes = (uint16)(lanes, lanes >> 4);
#pragma unroll
  for (uint v = 0; v < 4; ++v) weights[v] = look_up(levels, codes >> (8 * v));
}

#elif FORMAT_uint2 || FORMAT_uint3 || FORMAT_uint4 || FORMAT_uint8
#define BITS (FORMAT_uint2 ? 2 : FORMAT_uint3 ? 3 : FORMAT_uint4 ? 4 : 8)
INLINE float scale_at(const Row* layout, global const uchar* row, uint group) {
  return load_half(row + layout->code_bytes + 2 * (size_t)group);
}
INLINE float zero_at(const Row* layout, global const uchar* row, uint group) {
  return (float)row[layout->code_bytes + 2 * (size_t)layout->groups + group];
}
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  global const uchar* const source = row + column / 64 * (size_t)(8 * BITS);
  const uint c = column % 64;
  uint code;
  if (BITS == 8) code = source[c];
  else if (BITS == 4) code = nibble(source, c);
  else code = bits_of(source[c % 16], c / 16 * 2, 2) + (BITS == 3 ? 4 * bits_of(source[16 + c / 8], c % 8, 1) : 0);
  const uint group = group_of(layout, column);
  return ((float)code - zero_at(layout, row, group)) * scale_at(layout, row, group);
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  global const uchar* const source = row + (size_t)step * (8 * BITS);
#if !SHORT_BLOCKS
  const uint group = group_of(layout, 64 * step);
  const float scale = scale_at(layout, row, group), offset = -zero_at(layout, row, group) * scale;
#endif
#if FORMAT_uint4
  uint16 codes[4];
  nibbles(source, codes);
#elif FORMAT_uint8
  const uchar16 codes[4] = {load_bytes(source), load_bytes(source + 16), load_bytes(source + 32), load_bytes(source + 48)};
#else
  const uchar16 low = load_bytes(source);
  uchar16 codes[4] = {low & (uchar16)(3), shift_bytes(low, 2) & (uchar16)(3), shift_bytes(low, 4) & (uchar16)(3), low >> (uchar16)(6)};
#endif
#if FORMAT_uint3
#pragma unroll
  for (uint v = 0; v < 4; ++v) codes[v] |= spread_bits(load_ushort(source + 16 + 2 * v), 2);
#endif
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
#if SHORT_BLOCKS
    const uint group = group_of(layout, 64 * step + 16 * v);
    const float scale = scale_at(layout, row, group), offset = -zero_at(layout, row, group) * scale;
#endif
#if FORMAT_uint4
    weights[v] = scaled_nibbles(codes[v], scale, offset);
#else
    weights[v] = scaled_codes(codes[v], scale, offset);
#endif
  }
}

#elif FORMAT_fp8
// Bits of E4M3 moved to those of float32 are the value times 2^-120, subnormals too: those become right by conversion.
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  const uint code = row[column], magnitude = code & 127;
  const uint bits = magnitude < 8    ? as_uint((float)magnitude * 0x1p-9f)
                    : magnitude < 127 ? (magnitude << 20) + (120u << 23)
                                      : 0x7fc00000u;
  const float scale = load_float(row + layout->columns + 4 * (size_t)group_of(layout, column));
  return as_float((code & 128) << 24 | bits) * scale;
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
#if FAST_TABLES
  const uchar16 codes[4] = {load_bytes(row + 64 * step), load_bytes(row + 64 * step + 16), load_bytes(row + 64 * step + 32),
                            load_bytes(row + 64 * step + 48)};
  uchar16 largest = (uchar16)(0);
#pragma unroll
  for (uint v = 0; v < 4; ++v) largest = max(largest, codes[v] & (uchar16)(127));
  const bool special = any(largest == (uchar16)(127));
#endif
#pragma unroll
  for (uint v = 0; v < 4; ++v) {
    const uint column = 64 * step + 16 * v;
    const float scale = load_float(row + layout->columns + 4 * (size_t)group_of(layout, column));
#if FAST_TABLES
    // As halves, whose exponent is larger by 8, and whose subnormals are alike; NaN are numbers there.
    const ushort16 halves = as_ushort16(convert_short16(as_char16(codes[v]))) << (ushort16)(7) & (ushort16)(0xbf80);
    weights[v] = convert_halves(halves) * (scale * 256.0f);
    if (special) weights[v] = select(weights[v], (float16)(NAN), convert_int16(codes[v] & (uchar16)(127)) == 127);
#else
    const uint16 code = convert_uint16(load_bytes(row + column)), magnitude = code & 127;
    const uint16 small = as_uint16(convert_float16(magnitude) * 0x1p-9f);
    const uint16 normal = select((uint16)(0x7fc00000u), (magnitude << 20) + (120u << 23), magnitude < (uint16)(127u));
    const uint16 bits = select(normal, small, magnitude < (uint16)(8u)) | (code & 128) << 24;
    weights[v] = as_float16(bits) * scale;
#endif
  }
}

#elif FORMAT_mxfp4
// 2^(byte - 127); the least is no normal number.
INLINE float power_of_two(uint byte) { return as_float(byte == 255 ? 0x7fc00000u : byte == 0 ? 0x00400000u : byte << 23); }
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  return kFloat4[nibble(row, column)] * power_of_two(row[layout->code_bytes + column / 32]);
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  uint16 codes[4];
  nibbles(row + 32 * (size_t)step, codes);
#pragma unroll
  for (uint b = 0; b < 2; ++b) {
    const float16 levels = vload16(0, kFloat4) * power_of_two(row[layout->code_bytes + 2 * step + b]);
    weights[2 * b] = look_up(levels, codes[2 * b]);
    weights[2 * b + 1] = look_up(levels, codes[2 * b + 1]);
  }
}

#elif FORMAT_nf4
INLINE float decode_one(const Row* layout, global const uchar* row, uint column) {
  return kNormalFloat4[nibble(row, column)] * load_float(row + layout->code_bytes + 4 * (size_t)(column / 64));
}
INLINE void decode_step(const Row* layout, global const uchar* row, uint step, uint* state, float16 weights[4]) {
  uint16 codes[4];
  nibbles(row + 32 * (size_t)step, codes);
  const float16 levels = vload16(0, kNormalFloat4) * load_float(row + layout->code_bytes + 4 * (size_t)step);
#pragma unroll
  for (uint v = 0; v < 4; ++v) weights[v] = look_up(levels, codes[v]);
}
#endif
