// Weights to kNormalFloat4 and back, in AVX2; what each operation means is said in native/cpu/scalar/levels.h.
#pragma once

#include "../normal_float.h"
#include "simd.h"

namespace layerstream::cpu::avx2 {
namespace {

// A binary search in the thresholds: each comparison yields one bit of the code, the highest first.
inline __m256i nearest_level(__m256 value) {
  constexpr const float* t = kNearestThresholds;
  const __m256 bit3 = _mm256_cmp_ps(value, _mm256_set1_ps(t[7]), _CMP_GT_OQ);
  const __m256 second = _mm256_blendv_ps(_mm256_set1_ps(t[3]), _mm256_set1_ps(t[11]), bit3);
  const __m256i bit2 = _mm256_castps_si256(_mm256_cmp_ps(value, second, _CMP_GT_OQ));
  // A set bit is -1, so that codes are gathered as their negation.
  __m256i code = _mm256_add_epi32(_mm256_castps_si256(bit3), _mm256_castps_si256(bit3));
  code = _mm256_add_epi32(code, bit2);
  const __m256i quarter = _mm256_sub_epi32(_mm256_setzero_si256(), code);
  const __m256 third = _mm256_permutevar_ps(_mm256_setr_ps(t[1], t[5], t[9], t[13], t[1], t[5], t[9], t[13]), quarter);
  const __m256i bit1 = _mm256_castps_si256(_mm256_cmp_ps(value, third, _CMP_GT_OQ));
  const __m256i eighth = _mm256_sub_epi32(_mm256_add_epi32(quarter, quarter), bit1);
  const __m256 fourth = _mm256_permutevar8x32_ps(
      _mm256_setr_ps(t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14]), eighth);
  const __m256i bit0 = _mm256_castps_si256(_mm256_cmp_ps(value, fourth, _CMP_GT_OQ));
  return _mm256_sub_epi32(_mm256_add_epi32(eighth, eighth), bit0);
}
inline Integers nearest_level(Floats value) { return {nearest_level(value.low), nearest_level(value.high)}; }

inline __m256 level_value(__m256i codes) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNormalFloat4), codes);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNormalFloat4 + 8), codes);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}
inline Floats level_value(Integers codes) { return {level_value(codes.low), level_value(codes.high)}; }

inline void store_nibbles(uint8_t* target, const Integers codes[4]) {
  __m256i words = _mm256_setzero_si256();
  for (int k = 3; k >= 0; k--) {
    words = _mm256_or_si256(_mm256_slli_epi32(words, 4), codes[k].high);
    words = _mm256_or_si256(_mm256_slli_epi32(words, 4), codes[k].low);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), words);
}

struct FixedBlock {
  __m256i weights[4];  // int16, in kWeightUnits
  __m256i rounded[2];  // int8, in kLevelUnits, in the order that _mm256_packs_epi16 gives
};

inline FixedBlock to_fixed(const Floats weights[4], float inverse_magnitude) {
  const __m256 factor = _mm256_set1_ps(inverse_magnitude * kWeightUnits);
  const __m256i level_factor = _mm256_set1_epi16(kLevelFactor);
  FixedBlock block;
  __m256i rounded[4];
  for (int k = 0; k < 4; k++) {
    block.weights[k] = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(weights[k].low, factor)),
                                          _mm256_cvtps_epi32(_mm256_mul_ps(weights[k].high, factor)));
    rounded[k] = _mm256_mulhrs_epi16(block.weights[k], level_factor);
  }
  block.rounded[0] = _mm256_packs_epi16(rounded[0], rounded[1]);
  block.rounded[1] = _mm256_packs_epi16(rounded[2], rounded[3]);
  return block;
}

// kTrialLevels in cells of 8 numbers, of which none holds more than one step: the level is `low` up to `threshold` and
// `high` above it. Cell n is (number >> 3) & 31; both halves are repeated for the two lanes of _mm256_shuffle_epi8.
struct TrialCells {
  int8_t threshold[2][32], low[2][32], high[2][32];
};

constexpr TrialCells make_trial_cells() {
  TrialCells cells = {};
  for (int n = -16; n < 16; n++) {
    const int half = n < 0;
    for (int lane = 0; lane < 2; lane++) {
      const int cell = (n & 15) + 16 * lane;
      cells.low[half][cell] = kTrialLevels.of[(8 * n) & 255];
      cells.high[half][cell] = kTrialLevels.of[(8 * n + 7) & 255];
      cells.threshold[half][cell] = static_cast<int8_t>(8 * n);
      for (int i = 1; i < 8; i++) {
        if (kTrialLevels.of[(8 * n + i) & 255] == cells.low[half][cell]) {
          cells.threshold[half][cell] = static_cast<int8_t>(8 * n + i);
        }
      }
    }
  }
  return cells;
}

alignas(32) constexpr TrialCells kTrialCells = make_trial_cells();

// An index with its highest bit set yields 0.
inline __m256i look_up(const int8_t table[2][32], __m256i positive, __m256i negative) {
  const __m256i* halves = reinterpret_cast<const __m256i*>(table);
  return _mm256_or_si256(_mm256_shuffle_epi8(_mm256_load_si256(halves), positive),
                         _mm256_shuffle_epi8(_mm256_load_si256(halves + 1), negative));
}

inline __m256i trial_levels(__m256i numbers) {
  const __m256i sign = _mm256_set1_epi8(-128);
  const __m256i cell = _mm256_and_si256(_mm256_srli_epi16(numbers, 3), _mm256_set1_epi8(15));
  const __m256i positive = _mm256_or_si256(cell, _mm256_and_si256(numbers, sign));
  const __m256i negative = _mm256_xor_si256(positive, sign);
  const __m256i above = _mm256_cmpgt_epi8(numbers, look_up(kTrialCells.threshold, positive, negative));
  return _mm256_blendv_epi8(look_up(kTrialCells.low, positive, negative),
                            look_up(kTrialCells.high, positive, negative), above);
}

inline TrialSums try_scale(const FixedBlock& block, int16_t factor) {
  const __m256i factors = _mm256_set1_epi16(factor);
  __m256i products = _mm256_setzero_si256();
  __m256i squares = _mm256_setzero_si256();
  for (int k = 0; k < 2; k++) {
    const __m256i numbers = _mm256_packs_epi16(_mm256_mulhrs_epi16(block.weights[2 * k], factors),
                                               _mm256_mulhrs_epi16(block.weights[2 * k + 1], factors));
    const __m256i levels = trial_levels(numbers);
    // One factor of _mm256_maddubs_epi16 must not be negative.
    const __m256i positive = _mm256_abs_epi8(levels);
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i product = _mm256_maddubs_epi16(positive, _mm256_sign_epi8(block.rounded[k], levels));
    products = _mm256_add_epi32(products, _mm256_madd_epi16(product, ones));
    squares = _mm256_add_epi32(squares, _mm256_madd_epi16(_mm256_maddubs_epi16(positive, positive), ones));
  }
  const __m256i both =
      _mm256_add_epi32(_mm256_unpacklo_epi32(products, squares), _mm256_unpackhi_epi32(products, squares));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return {_mm_cvtsi128_si32(two), _mm_extract_epi32(two, 1)};
}

}  // namespace
}  // namespace layerstream::cpu::avx2
