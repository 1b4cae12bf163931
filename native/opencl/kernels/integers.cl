// Products of one or a few tokens in Precision::kFast with weights of four bits, after wide.cl and matmul.cl: activations become
// int16 with a scale for every 64 columns, levels come from a table of int16, and words are multiplied in pairs.

#if WIDE && (FORMAT_4bit || FORMAT_nf4 || FORMAT_uint4)

// Steps whose scales are one vector.
#define CHUNK 16
// An integer for 1: the largest level of 4bit and nf4, eight products of which with 32767 fit in 31 bits.
#define UNIT (FORMAT_uint4 ? 1.0f : 8191.0f)

// The codes of two steps are 32 words. Value p of 128 belongs to nibble p / 32 of word p % 32, and to this column.
INLINE uint column_of(uint p) {
  const uint nibble = p / 32, word = p % 32;
#if FORMAT_4bit
  return word / 16 * 64 + (4 * (word % 2) + nibble) * 8 + word % 16 / 2;
#else
  const uint byte = 2 * word + nibble / 2;
  return byte / 16 * 32 + byte % 16 + 16 * (nibble % 2);
#endif
}

// A prepared token: 16-bit values for `padded` steps, a whole number of chunks, then for each step a scale, and the scale times
// the sum of its values.
INLINE global short* values_of(global uchar* prepared, uint token, uint padded) {
  return (global short*)(prepared + (size_t)token * padded * (64 * sizeof(short) + 2 * sizeof(float)));
}
INLINE global float* scales_of(global short* values, uint padded) { return (global float*)(values + 64 * (size_t)padded); }

// Item (two steps, token).
kernel void prepare_integers(global float* input, ulong input_offset, uint input_stride, uint columns, uint padded, global uchar* prepared,
                             ulong prepared_offset) {
  const uint first = 2 * get_global_id(0), token = get_global_id(1);
  global const float* const source = FLOATS(input, input_offset) + (size_t)token * input_stride;
  global short* const values = values_of(prepared + prepared_offset, token, padded);
  global float* const scales = scales_of(values, padded);
  short ordered[128];
#pragma nounroll
  for (uint s = 0; s < 2; ++s) {
    const uint column = 64 * (first + s);
    float x[64];
    uint16 largest = (uint16)(0);
#pragma nounroll
    for (uint v = 0; v < 4; ++v) {
      const uint at = column + 16 * v;
      if (at + 16 <= columns) {
        vstore16(vload16(0, source + at), v, x);
      } else {
#pragma nounroll
        for (uint i = 0; i < 16; ++i) x[16 * v + i] = at + i < columns ? source[at + i] : 0.0f;
      }
      // Of floats without a sign, the larger has the larger bits, infinity and NaN the largest.
      largest = max(largest, as_uint16(vload16(v, x)) & 0x7fffffffu);
    }
    const uint8 a = max(largest.lo, largest.hi);
    const uint4 b = max(a.lo, a.hi);
    const uint2 c = max(b.lo, b.hi);
    const float magnitude = as_float(max(c.x, c.y));
    const bool finite = isfinite(magnitude), zero = magnitude < 0x1p-100f;
    const float scale = zero ? 0.0f : magnitude / 32767.0f, quantum = zero || !finite ? 0.0f : 32767.0f / magnitude;
    int16 total = (int16)(0);
#pragma nounroll
    for (uint v = 0; v < 4; ++v) {
      const int16 rounded = finite ? convert_int16(rint(vload16(v, x) * quantum)) : (int16)(0);
      total += rounded;
      vstore16(convert_short16(rounded), 4 * s + v, ordered);
    }
    const int8 d = total.lo + total.hi;
    const int4 e = d.lo + d.hi;
    scales[first + s] = finite ? scale / UNIT : NAN;
    scales[padded + first + s] = scale * (float)(e.x + e.y + e.z + e.w);
  }
#pragma nounroll
  for (uint p = 0; p < 128; ++p) values[64 * (size_t)first + p] = ordered[column_of(p)];
}

// A permutation of words looks at five bits of an index, of which the highest is the next code's: every level twice.
#if FORMAT_uint4
#define LEVELS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#else
#define LEVEL(level) (short)(level * UNIT + (level < 0 ? -0.5f : 0.5f))
#define LEVELS                                                                                                              \
  LEVEL(-1.0f), LEVEL(-0.6961928009986877f), LEVEL(-0.5250730514526367f), LEVEL(-0.39491748809814453f),                     \
      LEVEL(-0.28444138169288635f), LEVEL(-0.18477343022823334f), LEVEL(-0.09105003625154495f), 0,                          \
      LEVEL(0.07958029955625534f), LEVEL(0.16093020141124725f), LEVEL(0.24611230194568634f), LEVEL(0.33791524171829224f), \
      LEVEL(0.44070982933044434f), LEVEL(0.5626170039176941f), LEVEL(0.7229568362236023f), LEVEL(1.0f)
#endif
constant Words kLevels = {LEVELS, LEVELS};

// The codes of two steps; where the second is not in the row, of one, and zeros.
INLINE Words load_codes(global const uchar* row, uint step, uint steps) {
  global const uchar* const source = row + 32 * (size_t)step;
  if (step + 1 < steps) return (Words)load_wide(source);
  Words codes = {};
#pragma nounroll
  for (uint i = 0; i < 16; ++i) codes[i] = (short)load_ushort(source + 2 * i);
  return codes;
}

INLINE float16 convert_words(Words dots) {
  SixteenFloats result;
  result.elements = __builtin_convertvector((__typeof__(((SixteenIntegers*)0)->elements))dots, __typeof__(result.elements));
  return result.vector;
}

// Of a row, the scales of sixteen groups from `first` on, or of all groups if there are fewer.
INLINE float16 load_scales(const Row* layout, global const uchar* row, uint first) {
#if FORMAT_nf4
  if (layout->groups >= CHUNK) {
    SixteenFloats scales;
    scales.elements = (__typeof__(scales.elements))load_wide(row + layout->code_bytes + 4 * (size_t)first);
    return scales.vector;
  }
  float few[CHUNK];
#pragma nounroll
  for (uint i = 0; i < CHUNK; ++i) few[i] = i < layout->groups ? load_float(row + layout->code_bytes + 4 * i) : 0.0f;
#else
  if (layout->groups >= CHUNK) return convert_halves(vload16(0, (global const ushort*)(row + layout->code_bytes + 2 * (size_t)first)));
  float few[CHUNK];
#pragma nounroll
  for (uint i = 0; i < CHUNK; ++i) few[i] = i < layout->groups ? load_half(row + layout->code_bytes + 2 * i) : 0.0f;
#endif
  return vload16(0, few);
}

#if FORMAT_uint4
INLINE float16 load_zeros(const Row* layout, global const uchar* row, uint first) {
  global const uchar* const zeros = row + layout->code_bytes + 2 * (size_t)layout->groups;
  if (layout->groups >= CHUNK) return convert_float16(vload16(0, zeros + first));
  float few[CHUNK];
#pragma nounroll
  for (uint i = 0; i < CHUNK; ++i) few[i] = i < layout->groups ? (float)zeros[i] : 0.0f;
  return vload16(0, few);
}
#endif

// As matmul, with prepared tokens. Sums are the same bits whatever ROWS and TOKENS are.
kernel void multiply_integers(global const uchar* weight, ulong weight_offset, ulong row_bytes, uint rows, uint rows_per_group,
                              uint columns, uint block, int block_shift, uint groups, uint code_bytes,
                              global uchar* prepared, ulong prepared_offset, uint padded,
                              global float* output, ulong output_offset, uint output_stride,
                              global float* bias, ulong bias_offset, global float* row_scale, ulong row_scale_offset,
                              uint tokens, float scale, uint accumulate) {
  const Row layout = make_row(columns, block, block_shift, groups, code_bytes);
  const uint first_token = get_group_id(1) * TOKENS, first_row = get_group_id(0) * rows_per_group;
  const uint end_row = min(first_row + rows_per_group, rows);
  const uint steps = (columns + 63) / 64;
#if FORMAT_uint4
  const uint shift = groups == 1 ? 31 : block_shift - 6;
#else
  const uint shift = 0;
#endif
  const uint16 places = (uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  global short* inputs[TOKENS];
#pragma unroll
  for (uint t = 0; t < TOKENS; ++t) inputs[t] = values_of(prepared + prepared_offset, min(first_token + t, tokens - 1), padded);

  for (uint row = first_row; row < end_row; row += ROWS) {
    global const uchar* sources[ROWS];
    float16 sums[ROWS][TOKENS];
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
      sources[r] = weight + weight_offset + min(row + r, end_row - 1) * row_bytes;
#pragma unroll
      for (uint t = 0; t < TOKENS; ++t) sums[r][t] = (float16)(0.0f);
    }
    for (uint chunk = 0; chunk < steps; chunk += CHUNK) {
      const uint wanted = chunk >> shift, first = groups < CHUNK ? 0 : min(wanted, groups - CHUNK);
      const uint16 group = ((places + chunk) >> shift) - first;
      float16 factors[ROWS][TOKENS];
#pragma unroll
      for (uint r = 0; r < ROWS; ++r) {
        const float16 scales = look_up(load_scales(&layout, sources[r], first), group);
        fetch_ahead(sources[r] + code_bytes + 4 * first, row_bytes);
#if FORMAT_uint4
        const float16 offsets = scales * look_up(load_zeros(&layout, sources[r], first), group);
#endif
#pragma unroll
        for (uint t = 0; t < TOKENS; ++t) {
          global const float* const input_scales = scales_of(inputs[t], padded) + chunk;
#if FORMAT_uint4
          sums[r][t] -= offsets * vload16(0, input_scales + padded);
#endif
          factors[r][t] = scales * vload16(0, input_scales);
        }
      }
      uint16 place = (uint16)((uint8)(0), (uint8)(1));
      for (uint step = chunk; step < min(chunk + CHUNK, steps); step += 2, place += 2) {
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
          const Words codes = load_codes(sources[r], step, steps);
          fetch_ahead(sources[r] + (size_t)step * STEP_BYTES, row_bytes);
          Words levels[4];
#pragma unroll
          for (uint n = 0; n < 4; ++n) levels[n] = __builtin_ia32_permvarhi512(kLevels, (Words)((UnsignedWords)codes >> (ushort)(4 * n)));
#pragma unroll
          for (uint t = 0; t < TOKENS; ++t) {
            global const Words* const values = (global const Words*)(inputs[t] + 64 * (size_t)step);
            Words dots = {};
#pragma unroll
            for (uint n = 0; n < 4; ++n) dots = multiply_pairs(dots, levels[n], values[n]);
            sums[r][t] = MULTIPLY_ADD(convert_words(dots), look_up(factors[r][t], place), sums[r][t]);
          }
        }
      }
    }
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
#pragma unroll
      for (uint t = 0; t < TOKENS; ++t) {
        if (row + r >= end_row || first_token + t >= tokens) continue;
        put_product(sum16(sums[r][t]), row + r, row_scale, row_scale_offset, bias, bias_offset, scale, accumulate,
                    FLOATS(output, output_offset) + (size_t)(first_token + t) * output_stride);
      }
    }
  }
}
#endif
