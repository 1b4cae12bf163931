// Weights that are small integers times a scale: they are multiplied as they are, and only activations are rounded, to
// integers whose scale is that of the same columns.
#pragma once

#include <bit>
#include <limits>

#include "../kernels.h"
#include "level_table.h"
#include "matrix_groups.h"

namespace layerstream::cpu::vnni {

namespace {

// |weight| <= 255: no block of integers below 2^15 sums to 2^31.
template <uint32_t block>
struct SmallCodes : Layout<block, block> {
  static constexpr float kLargestSum = 0;  // of the magnitudes of the activations of a part; 0: no limit
  static_assert(block * int64_t{255} * 32767 < int64_t{1} << 31);
};

// |weight| <= kNormalFloatUnit.
struct LevelCodes : Layout<64, 8> {
  static constexpr float kLargestSum = 136900.0f;
  static_assert((136900.0 + 8 * 0.5) * kNormalFloatUnit < 2147483648.0 * (1 - 1e-5));
};

// --- rows --------------------------------------------------------------------------------------------------------

inline float half_at(const uint8_t* source) {
  uint16_t half;
  std::memcpy(&half, source, sizeof half);
  return _cvtsh_ss(half);
}

// For each format: the integers of the block that begins at `column` of a row, and its scale.

template <uint32_t block>
struct ByteCodes {
  using Layout = SmallCodes<block>;
  uint32_t shift;  // of a column, to its scale
  size_t scales;

  ByteCodes(uint32_t columns, uint32_t columns_of_scale)
      : shift(static_cast<uint32_t>(std::countr_zero(columns_of_scale))),
        scales(size_t{quotient_up(columns, columns_of_scale)} * columns_of_scale) {}

  void load(const uint8_t* row, uint32_t column, int16_t* codes) const {
    for (uint32_t i = 0; i < block; i += 32) {
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + column + i));
      _mm512_storeu_si512(codes + i, _mm512_cvtepi8_epi16(bytes));
    }
  }

  float scale(const uint8_t* row, uint32_t column) const {
    return half_at(row + scales + 2 * size_t{column >> shift}) * (1.0f / 127);
  }
};

struct alignas(64) Words {
  uint16_t value[32];
};

constexpr Words make_words(uint32_t (*value)(uint32_t word)) {
  Words words = {};
  for (uint32_t w = 0; w < 32; ++w) words.value[w] = static_cast<uint16_t>(value(w));
  return words;
}

// Columns w and 32 + w of a step of 4bit are nibble w / 8 of its words 2 * (w % 8) and 2 * (w % 8) + 1.
constexpr Words kLaneWord = make_words([](uint32_t w) { return w % 8 * 2; });
constexpr Words kLaneShift = make_words([](uint32_t w) { return w / 8 * 4; });

struct LaneCodes {
  using Layout = LevelCodes;
  size_t scales;

  LaneCodes(uint32_t columns, uint32_t) : scales(size_t{quotient_up(columns, 64)} * 32) {}

  void load(const uint8_t* row, uint32_t column, int16_t* codes) const {
    const __m512i table = _mm512_load_si512(kNormalFloatTable.level);
    const __m512i shift = _mm512_load_si512(kLaneShift.value);
    const __m512i step = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + column / 2)));
    for (int16_t half = 0; half < 2; ++half) {
      const __m512i place = _mm512_add_epi16(_mm512_load_si512(kLaneWord.value), _mm512_set1_epi16(half));
      const __m512i words = _mm512_srlv_epi16(_mm512_permutexvar_epi16(place, step), shift);
      _mm512_storeu_si512(codes + 32 * half, _mm512_permutexvar_epi16(words, table));
    }
  }

  float scale(const uint8_t* row, uint32_t column) const {
    return half_at(row + scales + 2 * size_t{column / 64}) * (1.0f / kNormalFloatUnit);
  }
};

// Columns l and 16 + l of 32 are the nibbles of byte l of 16.
constexpr Words kByteShift = make_words([](uint32_t w) { return w / 16 * 4; });

inline __m512i look_up_nibbles(const uint8_t* source, const LevelTable& table) {
  const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
  const __m512i twice = _mm512_inserti64x4(_mm512_castsi256_si512(bytes), bytes, 1);
  return _mm512_permutexvar_epi16(_mm512_srlv_epi16(twice, _mm512_load_si512(kByteShift.value)),
                                  _mm512_load_si512(table.level));
}

struct NormalFloatCodes {
  using Layout = LevelCodes;
  size_t scales;

  NormalFloatCodes(uint32_t columns, uint32_t) : scales(size_t{quotient_up(columns, 64)} * 32) {}

  void load(const uint8_t* row, uint32_t column, int16_t* codes) const {
    for (uint32_t i = 0; i < 64; i += 32) {
      _mm512_storeu_si512(codes + i, look_up_nibbles(row + (column + i) / 2, kNormalFloatTable));
    }
  }

  float scale(const uint8_t* row, uint32_t column) const {
    float scale;
    std::memcpy(&scale, row + scales + 4 * size_t{column / 64}, sizeof scale);
    return scale * (1.0f / kNormalFloatUnit);
  }
};

struct OffsetCodes {
  using Layout = SmallCodes<64>;
  size_t scales;
  uint32_t groups, shift;  // of a column, to its group

  OffsetCodes(uint32_t columns, uint32_t block)
      : scales(size_t{quotient_up(columns, 64)} * 32),
        groups(quotient_up(columns, block)),
        shift(groups == 1 ? 31 : static_cast<uint32_t>(std::countr_zero(block))) {}

  static bool supports(uint32_t block, uint32_t columns) {
    return block >= columns || (block >= 64 && std::has_single_bit(block));
  }

  void load(const uint8_t* row, uint32_t column, int16_t* codes) const {
    const uint8_t zero = row[scales + 2 * size_t{groups} + (column >> shift)];
    for (uint32_t i = 0; i < 64; i += 32) {
      const __m512i nibbles = look_up_nibbles(row + (column + i) / 2, kCodeTable);
      _mm512_storeu_si512(codes + i, _mm512_sub_epi16(nibbles, _mm512_set1_epi16(zero)));
    }
  }

  float scale(const uint8_t* row, uint32_t column) const { return half_at(row + scales + 2 * size_t{column >> shift}); }
};

// --- tokens ------------------------------------------------------------------------------------------------------

// Of every four lanes their sum.
inline __m512 add_neighbours(__m512 values) {
  const __m512 pairs = _mm512_add_ps(values, _mm512_permute_ps(values, 0xb1));
  return _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0x4e));
}

// One token; its integers as pairs of columns, in order. Makes the largest of each block 32767, or what the sums allow.
template <class Layout>
inline void round_token_blocks(Floats values[kVectors], Floats pairs[kVectors / 2], float* scales, uint32_t stride) {
  constexpr uint32_t kBlockVectors = Layout::kBlock / kLanes;
  for (uint32_t block = 0; block < Layout::kBlocks; ++block) {
    Floats* const x = values + block * kBlockVectors;
    __m512i bits = _mm512_setzero_si512();
    for (uint32_t v = 0; v < kBlockVectors; ++v) bits = _mm512_max_epi32(bits, avx512::absolute_bits(x[v]).v);
    // As bits, infinity and NaN are larger than any number.
    float largest = std::bit_cast<float>(_mm512_reduce_max_epi32(bits)), exponent = 0.0f, scale = largest;
    if (!(largest > 1e-30f && largest < 1e30f)) [[unlikely]] {
      const bool finite = largest <= std::numeric_limits<float>::max();
      if (finite && largest > 0.0f) {
        exponent = _mm_cvtss_f32(_mm_getexp_ss(_mm_set_ss(largest), _mm_set_ss(largest)));
        largest = times_power(largest, -exponent);
        for (uint32_t v = 0; v < kBlockVectors; ++v) x[v].v = _mm512_scalef_ps(x[v].v, _mm512_set1_ps(-exponent));
      } else {
        for (uint32_t v = 0; v < kBlockVectors; ++v) x[v] = avx512::broadcast(0.0f);
        scale = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
      }
    }
    float factor = kLargestInteger / largest;
    if constexpr (Layout::kLargestSum > 0) {
      static_assert(Layout::kPart == kLanes / 2);
      float sum = 0.0f;
      for (uint32_t v = 0; v < kBlockVectors; ++v) {
        const __m512 four = add_neighbours(_mm512_abs_ps(x[v].v));
        const float part = _mm512_reduce_max_ps(_mm512_add_ps(four, _mm512_shuffle_f32x4(four, four, 0xb1)));
        sum = part > sum ? part : sum;
      }
      if (factor * sum > Layout::kLargestSum) factor = Layout::kLargestSum / sum;
    }
    for (uint32_t v = 0; v < kBlockVectors; v += 2) {
      const auto words = [&](Floats floats) {
        return _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(floats.v, _mm512_set1_ps(factor))));
      };
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(words(x[v])), words(x[v + 1]), 1);
      pairs[(block * kBlockVectors + v) / 2].v = _mm512_castsi512_ps(both);
    }
    scales[block * stride] = scale > 0.0f ? times_power(1.0f / factor, exponent) : scale;
  }
}

}  // namespace

}  // namespace layerstream::cpu::vnni
