// Groups of 128 columns as 16-bit integers with one scale: what matrix_vnni.cc multiplies, and how it comes from floats.
#pragma once

#include <bit>
#include <cmath>

#include "../avx512/simd.h"

namespace layerstream::cpu::vnni {

namespace {

using avx512::Floats;

constexpr uint32_t kLanes = 16;
constexpr uint32_t kGroup = 128;
constexpr uint32_t kPairs = kGroup / 2;
constexpr uint32_t kVectors = kGroup / kLanes;
constexpr uint32_t kTileTokens = 2 * kLanes;
constexpr uint32_t kTileRows = 6;

// Of the integers of a part. Rounding adds at most sqrt(16) / 2 to a norm.
constexpr float kWeightNorm = 32764.0f;
constexpr float kActivationNorm = 65532.0f;
constexpr float kLargestInteger = 32767.0f;
constexpr uint32_t kPartPairs = 8;
static_assert((32764.0 + 2.1) * (65532.0 + 2.1) < 2147483648.0 * (1 - 1e-5));

struct alignas(64) RowGroup {
  int16_t codes[kTileRows][kGroup];
  float scales[kLanes];
};

template <uint32_t kTokens>
struct alignas(64) TokenGroup {
  int16_t codes[kPairs][kTokens][2];
  float scales[kTokens];
};

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
constexpr uint32_t quotient_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
constexpr uint32_t groups_of(uint32_t columns) { return quotient_up(columns, kGroup); }

// --- groups of floats to integers --------------------------------------------------------------------------------

// The largest sum of squares of a part, or NaN: `squares` are sums of neighbours, four vectors of 32 columns in the order of
// round_to_integers. A part is half of a vector.
inline float largest_part(const __m512 squares[kVectors / 2]) {
  static_assert(kVectors == 8);
  const auto add_halves = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512d first = _mm512_castps_pd(add_halves(squares[0], squares[1]));
  const __m512d second = _mm512_castps_pd(add_halves(squares[2], squares[3]));
  const __m512 quarters = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                                        _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
  const __m512 halves = _mm512_add_ps(quarters, _mm512_shuffle_f32x4(quarters, quarters, 0xb1));
  // As bits, NaN is larger than any number.
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(avx512::largest(avx512::absolute_bits({halves})))));
}

inline float largest_squares(const Floats values[kVectors]) {
  __m512 squares[kVectors / 2];
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    const __m512 low = values[2 * i].v, high = values[2 * i + 1].v;
    squares[i] = _mm512_fmadd_ps(low, low, _mm512_mul_ps(high, high));
  }
  return largest_part(squares);
}

// Beyond these, squares or their sums may have left the range of float32.
inline bool is_moderate(float squares) { return squares > 1e-30f && squares < 1e30f; }

inline float largest_magnitude(const Floats values[kVectors]) {
  constexpr int kMagnitude = 0x0b;
  Floats largest = avx512::broadcast(0.0f);
  for (uint32_t v = 0; v < kVectors; ++v) largest.v = _mm512_range_ps(largest.v, values[v].v, kMagnitude);
  return avx512::largest(largest);
}

// For values whose squares leave the range of float32: divides them by 2^exponent. Returns their largest_squares, which
// is NaN if a value is not finite.
[[gnu::noinline]] float normalize(Floats values[kVectors], float& exponent) {
  const __m128 largest = _mm_set_ss(largest_magnitude(values));
  if (_mm_cvtss_f32(largest) > 0.0f) {
    exponent = _mm_cvtss_f32(_mm_getexp_ss(largest, largest));
    for (uint32_t v = 0; v < kVectors; ++v) values[v].v = _mm512_scalef_ps(values[v].v, _mm512_set1_ps(-exponent));
  }
  return largest_squares(values);
}

// The largest Euclidean norm of a part of a group, which is divided by 2^exponent where need be.
inline float norm_of(Floats values[kVectors], float& exponent) {
  exponent = 0.0f;
  float squares = largest_squares(values);
  if (!is_moderate(squares)) [[unlikely]] {
    Floats copy[kVectors];
    for (uint32_t v = 0; v < kVectors; ++v) copy[v] = values[v];
    squares = normalize(copy, exponent);
    for (uint32_t v = 0; v < kVectors; ++v) values[v] = copy[v];
  }
  return std::sqrt(squares);
}

inline float times_power(float value, float exponent) {
  return exponent == 0.0f ? value : _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(value), _mm_set_ss(exponent)));
}

// Integers of 32 columns: pairs of neighbours in an order that is the same for weights and activations.
inline __m512i round_to_integers(const Floats values[2], __m512 factor) {
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(values[0].v, factor));
  const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(values[1].v, factor));
  return _mm512_packs_epi32(low, high);
}

// Returns the group's scale. A factor that is a power of two keeps weights of few significant bits exact.
template <bool kPowerOfTwo>
inline float pack_row_group(const float* weights, int16_t codes[kGroup]) {
  Floats values[kVectors];
  for (uint32_t v = 0; v < kVectors; ++v) values[v] = avx512::load(weights + v * kLanes);
  float exponent;
  const float norm = norm_of(values, exponent);
  __m512 factor = _mm512_set1_ps(norm > 0.0f ? kWeightNorm / norm : 0.0f);
  if constexpr (kPowerOfTwo) factor = _mm512_and_ps(factor, _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)));
  for (uint32_t i = 0; i < kVectors; i += 2) _mm512_storeu_si512(codes + i * kLanes, round_to_integers(values + i, factor));
  if (!(norm > 0.0f)) return norm;
  return times_power(kPowerOfTwo ? 1.0f / _mm512_cvtss_f32(factor) : norm * (1.0f / kWeightNorm), exponent);
}

// A group of bfloat16. Returns its scale, or 0 where pack_row_group has to do it.
inline float pack_bfloat_group(const uint8_t* weights, int16_t codes[kGroup]) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  __m512i raw[kVectors / 2];
  __m512 sums[kVectors / 2];
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    raw[i] = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(weights + i * sizeof(__m512i)));
    sums[i] = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)raw[i], (__m512bh)raw[i]);
  }
  const float squares = largest_part(sums);
  if (!is_moderate(squares)) [[unlikely]] return 0.0f;
  // The largest power of two that keeps the norm within its limit, from the exponents of the squares of both.
  const int32_t quotient = std::bit_cast<int32_t>(kWeightNorm * kWeightNorm) - std::bit_cast<int32_t>(squares);
  const int32_t power = quotient >> 24;
  const __m512 factor = _mm512_castsi512_ps(_mm512_set1_epi32((127 + power) << 23));
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(raw[i], 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(raw[i], _mm512_set1_epi32(static_cast<int32_t>(0xffff0000))));
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(even, factor));
    const __m512i high = _mm512_slli_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(odd, factor)), 16);
    _mm512_storeu_si512(codes + 2 * i * kLanes, _mm512_mask_blend_epi16(0xaaaaaaaa, low, high));
  }
  return std::bit_cast<float>((127 - power) << 23);
}

// One token; its integers as 64 pairs of columns. Returns the group's scale.
inline float pack_token_group(const float* input, uint32_t columns, Floats pairs[kVectors / 2]) {
  Floats values[kVectors];
  for (uint32_t v = 0; v < kVectors; ++v) {
    const uint32_t first = v * kLanes;
    values[v] = columns >= first + kLanes ? avx512::load(input + first)
                : columns > first         ? avx512::load(input + first, columns - first)
                                          : avx512::broadcast(0.0f);
  }
  float exponent;
  const float norm = norm_of(values, exponent);
  const float by_norm = kActivationNorm / norm, by_largest = kLargestInteger / largest_magnitude(values);
  const float factor = norm > 0.0f ? (by_norm < by_largest ? by_norm : by_largest) : 0.0f;
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    pairs[i].v = _mm512_castsi512_ps(round_to_integers(values + 2 * i, _mm512_set1_ps(factor)));
  }
  return norm > 0.0f ? times_power(1.0f / factor, exponent) : norm;
}

template <uint32_t kTokens>
void pack_tokens(const float* input, size_t stride, uint32_t tokens, uint32_t columns, uint32_t lane,
                 TokenGroup<kTokens>* output) {
  for (uint32_t group = 0; group < groups_of(columns); ++group) {
    Floats pairs[kVectors / 2][kLanes];
    for (uint32_t t = 0; t < kLanes; ++t) {
      Floats packed[kVectors / 2] = {};
      const float* const source = input + t * stride + size_t{group} * kGroup;
      output[group].scales[lane + t] = t < tokens ? pack_token_group(source, columns - group * kGroup, packed) : 0.0f;
      for (uint32_t i = 0; i < kVectors / 2; ++i) pairs[i][t] = packed[i];
    }
    for (uint32_t i = 0; i < kVectors / 2; ++i) {
      avx512::transpose(pairs[i]);
      for (uint32_t p = 0; p < kLanes; ++p) {
        _mm512_storeu_ps(output[group].codes[i * kLanes + p][lane], pairs[i][p].v);
      }
    }
  }
}

}  // namespace

}  // namespace layerstream::cpu::vnni
