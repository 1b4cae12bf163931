// Weights that are rounded to 16-bit integers, and the activations for them: one scale a group, which keeps the Euclidean
// norms of its parts within what their products may sum to.
#pragma once

#include <bit>
#include <cmath>
#include <type_traits>

#include "matrix_groups.h"

namespace layerstream::cpu::vnni {

namespace {

// Norms are of the integers of a part. Rounding adds at most sqrt(16) / 2 to them.

// A factor that is a power of two keeps weights of few significant bits exact: for bfloat16.
struct PowerRounded : Layout<kGroup, 16> {
  static constexpr float kWeightNorm = 32764.0f;  // no weight is larger either
  static constexpr float kActivationNorm = 65532.0f;
};

struct Rounded : Layout<kGroup, 8> {
  static constexpr float kWeightNorm = 46338.0f;
  static constexpr float kActivationNorm = 46338.0f;
};

static_assert((32764.0 + 2.1) * (65532.0 + 2.1) < 2147483648.0 * (1 - 1e-5));
static_assert((46338.0 + 1.5) * (46338.0 + 1.5) < 2147483648.0 * (1 - 1e-5));

// The largest sum of squares of a part, or NaN: `squares` are sums of neighbours, four vectors of 32 columns in the order of
// round_to_integers. A part is half or a quarter of a vector.
template <uint32_t kPart>
inline float largest_part(const __m512 squares[kVectors / 2]) {
  static_assert(kVectors == 8);
  const auto add_halves = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512d first = _mm512_castps_pd(add_halves(squares[0], squares[1]));
  const __m512d second = _mm512_castps_pd(add_halves(squares[2], squares[3]));
  const __m512 quarters = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                                        _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
  static_assert(kPart == 8 || kPart == 16);
  const __m512 parts = kPart == 8 ? quarters : _mm512_add_ps(quarters, _mm512_shuffle_f32x4(quarters, quarters, 0xb1));
  // As bits, NaN is larger than any number.
  return std::bit_cast<float>(avx512::largest(avx512::absolute_bits({parts})));
}

template <uint32_t kPart>
inline float largest_squares(const Floats values[kVectors]) {
  __m512 squares[kVectors / 2];
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    const __m512 low = values[2 * i].v, high = values[2 * i + 1].v;
    squares[i] = _mm512_fmadd_ps(low, low, _mm512_mul_ps(high, high));
  }
  return largest_part<kPart>(squares);
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
template <uint32_t kPart>
[[gnu::noinline]] float normalize(Floats values[kVectors], float& exponent) {
  const __m128 largest = _mm_set_ss(largest_magnitude(values));
  if (_mm_cvtss_f32(largest) > 0.0f) {
    exponent = _mm_cvtss_f32(_mm_getexp_ss(largest, largest));
    for (uint32_t v = 0; v < kVectors; ++v) values[v].v = _mm512_scalef_ps(values[v].v, _mm512_set1_ps(-exponent));
  }
  return largest_squares<kPart>(values);
}

// The largest Euclidean norm of a part of a group, which is divided by 2^exponent where need be.
template <uint32_t kPart>
inline float norm_of(Floats values[kVectors], float& exponent) {
  exponent = 0.0f;
  float squares = largest_squares<kPart>(values);
  if (!is_moderate(squares)) [[unlikely]] {
    Floats copy[kVectors];
    for (uint32_t v = 0; v < kVectors; ++v) copy[v] = values[v];
    squares = normalize<kPart>(copy, exponent);
    for (uint32_t v = 0; v < kVectors; ++v) values[v] = copy[v];
  }
  return std::sqrt(squares);
}

// Integers of 32 columns: pairs of neighbours in an order that is the same for weights and activations.
inline __m512i round_to_integers(const Floats values[2], __m512 factor) {
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(values[0].v, factor));
  const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(values[1].v, factor));
  return _mm512_packs_epi32(low, high);
}

// What `values` are multiplied with; 0 if all are 0, or one is not finite.
inline float factor_of(const Floats values[kVectors], float norm, float largest_norm) {
  const float by_norm = largest_norm / norm, by_largest = kLargestInteger / largest_magnitude(values);
  return norm > 0.0f ? (by_norm < by_largest ? by_norm : by_largest) : 0.0f;
}

// Returns the group's scale.
template <class Layout>
inline float round_row_group(const float* weights, int16_t codes[kGroup]) {
  Floats values[kVectors];
  for (uint32_t v = 0; v < kVectors; ++v) values[v] = avx512::load(weights + v * kLanes);
  float exponent;
  const float norm = norm_of<Layout::kPart>(values, exponent);
  float factor = factor_of(values, norm, Layout::kWeightNorm);
  if constexpr (std::is_same_v<Layout, PowerRounded>) factor = std::bit_cast<float>(std::bit_cast<uint32_t>(factor) & 0x7f800000);
  for (uint32_t i = 0; i < kVectors; i += 2) {
    _mm512_storeu_si512(codes + i * kLanes, round_to_integers(values + i, _mm512_set1_ps(factor)));
  }
  return norm > 0.0f ? times_power(1.0f / factor, exponent) : norm;
}

// A group of bfloat16. Returns its scale, or 0 where round_row_group has to do it.
inline float round_bfloat_group(const uint8_t* weights, int16_t codes[kGroup]) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  __m512i raw[kVectors / 2];
  __m512 sums[kVectors / 2];
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    raw[i] = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(weights + i * sizeof(__m512i)));
    sums[i] = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)raw[i], (__m512bh)raw[i]);
  }
  const float squares = largest_part<PowerRounded::kPart>(sums);
  if (!is_moderate(squares)) [[unlikely]] return 0.0f;
  // The largest power of two that keeps the norm within its limit, from the exponents of the squares of both.
  const int32_t quotient = std::bit_cast<int32_t>(PowerRounded::kWeightNorm * PowerRounded::kWeightNorm) - std::bit_cast<int32_t>(squares);
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
template <class Layout>
inline float round_token_group(Floats values[kVectors], Floats pairs[kVectors / 2]) {
  float exponent;
  const float norm = norm_of<Layout::kPart>(values, exponent);
  const float factor = factor_of(values, norm, Layout::kActivationNorm);
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    pairs[i].v = _mm512_castsi512_ps(round_to_integers(values + 2 * i, _mm512_set1_ps(factor)));
  }
  return norm > 0.0f ? times_power(1.0f / factor, exponent) : norm;
}

}  // namespace

}  // namespace layerstream::cpu::vnni
