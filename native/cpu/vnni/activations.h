// Activations of one token, prepared for products with packed weights. All of it is relative to a power of two near the
// token's largest, so that results do not depend on the scale of a model's activations:
//
//   x = factor * (high + low)                     pairs of bfloat16, for weights in bfloat16
//   x = factor * scale[group] * value             int16, for weights that become integers
//
// The scale of a group of 32 or 64 columns makes its largest value 32767, or what the sums of its products allow. Columns past the end are 0. What is not finite
// makes the factor, and with it every result, NaN.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "../avx512/decode.h"
#include "../kernels.h"

namespace layerstream::cpu::vnni {
namespace {

constexpr uint32_t kGroups = 16;  // groups of a chunk: their scales are one register

// Before the chunks or pairs of a token.
struct alignas(64) TokenHeader {
  float factor;
};

struct alignas(64) BfloatPair {
  uint16_t high[32], low[32];
};

template <uint32_t kGroup>
struct alignas(64) IntegerChunk {
  int16_t values[kGroups * kGroup];  // in the order that the format's codes come in
  float scales[kGroups];
  float sums[kGroups];  // of scale * value, for formats with offsets
};

constexpr uint32_t divide_up(uint32_t value, uint32_t divisor) { return value / divisor + (value % divisor != 0); }

template <class Part>
constexpr size_t token_bytes(uint32_t parts) {
  return sizeof(TokenHeader) + size_t{parts} * sizeof(Part);
}

inline __m512 load_columns(const float* input, uint32_t column, uint32_t columns) {
  if (column + 16 <= columns) return _mm512_loadu_ps(input + column);
  if (column >= columns) return _mm512_setzero_ps();
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << (columns - column)) - 1), input + column);
}

// The factor of a token, and its inverse; both normal numbers.
struct TokenScale {
  float factor, inverse;
};

inline TokenScale scale_of(const float* input, uint32_t columns) {
  __m512i largest = _mm512_setzero_si512();
  for (uint32_t column = 0; column < columns; column += 16) {
    const __m512i bits = _mm512_castps_si512(load_columns(input, column, columns));
    // Of floats without a sign, the larger has the larger bits, infinity and NaN the largest.
    largest = _mm512_max_epi32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
  }
  const int exponent = (_mm512_reduce_max_epi32(largest) >> 23) - 127;
  if (exponent == 128) return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  const int limited = std::clamp(exponent, -126, 126);
  return {std::ldexp(1.0f, limited), std::ldexp(1.0f, -limited)};
}

inline void prepare_bfloat(const float* input, uint32_t columns, uint8_t* prepared) {
  const TokenScale scale = scale_of(input, columns);
  reinterpret_cast<TokenHeader*>(prepared)->factor = scale.factor;
  auto* pair = reinterpret_cast<BfloatPair*>(prepared + sizeof(TokenHeader));
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  for (uint32_t column = 0; column < columns; column += 32, ++pair) {
    for (uint32_t half = 0; half < 2; ++half) {
      const __m512 x = _mm512_mul_ps(load_columns(input, column + 16 * half, columns), inverse);
      const __m256bh high = _mm512_cvtneps_pbh(x);
      const __m512 widened = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)high), 16));
      const __m256bh low = _mm512_cvtneps_pbh(_mm512_sub_ps(x, widened));
      _mm256_store_si256(reinterpret_cast<__m256i*>(pair->high + 16 * half), (__m256i)high);
      _mm256_store_si256(reinterpret_cast<__m256i*>(pair->low + 16 * half), (__m256i)low);
    }
  }
}

// Position p of a step of 128 values has column order[p].
struct alignas(64) StepOrder {
  uint16_t column[128];
};

// The eight columns of a group of 64 whose products one lane sums: l, 8 + l, 16 + l ..., or four of 32 and the four 16 on.
enum class LaneColumns { kEighth, kFours };

// How activations become integers for a format.
struct IntegerRule {
  float weight_unit;       // of the integers that stand for weights
  float lane_sum;          // the most that the values of a lane may sum to; 0: no limit
  LaneColumns lane;
  const StepOrder* order;  // rearranges every 128 columns, or null
};

constexpr float kLargestValue = 32767.0f;

// The largest sum of the magnitudes of a lane's columns, of 64.
inline float largest_lane_sum(const __m512* magnitudes, LaneColumns lane) {
  if (lane == LaneColumns::kEighth) {
    const __m512 sums = _mm512_add_ps(_mm512_add_ps(magnitudes[0], magnitudes[1]), _mm512_add_ps(magnitudes[2], magnitudes[3]));
    return _mm512_reduce_max_ps(_mm512_add_ps(sums, _mm512_shuffle_f32x4(sums, sums, 0x4e)));
  }
  const auto fours = [](__m512 a, __m512 b) {
    const __m512 both = _mm512_add_ps(a, b);
    const __m512 pairs = _mm512_add_ps(both, _mm512_permute_ps(both, 0xb1));
    return _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0x4e));
  };
  return _mm512_reduce_max_ps(_mm512_max_ps(fours(magnitudes[0], magnitudes[1]), fours(magnitudes[2], magnitudes[3])));
}

template <uint32_t kGroup>
void prepare_integers(const float* input, uint32_t columns, const IntegerRule& rule, uint8_t* prepared) {
  const TokenScale token = scale_of(input, columns);
  reinterpret_cast<TokenHeader*>(prepared)->factor = token.factor;
  auto* chunk = reinterpret_cast<IntegerChunk<kGroup>*>(prepared + sizeof(TokenHeader));
  const __m512 inverse = _mm512_set1_ps(token.inverse);
  constexpr uint32_t kVectors = kGroup / 16;
  constexpr uint32_t kChunk = kGroups * kGroup;
  for (uint32_t first = 0; first < columns; first += kChunk, ++chunk) {
    for (uint32_t group = 0; group < kGroups; ++group) {
      __m512 x[kVectors], magnitudes[kVectors];
      __m512 magnitude = _mm512_setzero_ps();
      for (uint32_t v = 0; v < kVectors; ++v) {
        x[v] = _mm512_mul_ps(load_columns(input, first + group * kGroup + 16 * v, columns), inverse);
        magnitudes[v] = _mm512_abs_ps(x[v]);
        magnitude = _mm512_max_ps(magnitude, magnitudes[v]);
      }
      // What is so small beside the token's largest has no weight; the quotient stays finite.
      const float largest = _mm512_reduce_max_ps(magnitude);
      float scale = largest < 0x1p-90f ? 0.0f : largest / kLargestValue;
      if constexpr (kGroup == 64) {
        if (rule.lane_sum > 0) scale = std::max(scale, largest_lane_sum(magnitudes, rule.lane) / rule.lane_sum);
      }
      const float quantum = scale == 0.0f ? 0.0f : 1.0f / scale;
      __m512i total = _mm512_setzero_si512();
      for (uint32_t v = 0; v < kVectors; ++v) {
        const __m512i value = _mm512_cvtps_epi32(_mm512_mul_ps(x[v], _mm512_set1_ps(quantum)));
        total = _mm512_add_epi32(total, value);
        _mm256_store_si256(reinterpret_cast<__m256i*>(chunk->values + group * kGroup + 16 * v),
                           _mm512_cvtepi32_epi16(value));
      }
      chunk->scales[group] = scale * rule.weight_unit;
      chunk->sums[group] = scale * static_cast<float>(_mm512_reduce_add_epi32(total));
    }
    if (rule.order == nullptr) continue;
    for (uint32_t step = 0; step < kChunk; step += 128) {
      __m512i* const values = reinterpret_cast<__m512i*>(chunk->values + step);
      const __m512i a = values[0], b = values[1], c = values[2], d = values[3];
      for (uint32_t v = 0; v < 4; ++v) {
        const __m512i index = _mm512_load_si512(rule.order->column + 32 * v);
        const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
        values[v] = _mm512_mask_blend_epi16(upper, _mm512_permutex2var_epi16(a, index, b),
                                            _mm512_permutex2var_epi16(c, index, d));
      }
    }
  }
}

}  // namespace
}  // namespace layerstream::cpu::vnni
