// Weights to kNormalFloat4 and back, in AVX-512; what each operation means is said in native/cpu/scalar/levels.h.
#pragma once

#include "../normal_float.h"
#include "simd.h"

namespace layerstream::cpu::avx512 {
namespace {

// Numbers are sorted into cells that are 1/16 wide, cell n (modulo 32) around n / 16. No cell holds two thresholds:
// the code is the number of thresholds below the cell, plus one if the cell's own threshold is below the number.
struct Cells {
  float threshold[32];
  int32_t below[32];
};

constexpr Cells make_cells() {
  Cells cells = {};
  for (int n = -16; n < 16; n++) {
    const int cell = n & 31;
    cells.threshold[cell] = 2.0f;
    for (float threshold : kNearestThresholds) {
      const float position = threshold * 16.0f;
      if (position < static_cast<float>(n) - 0.5f) {
        cells.below[cell]++;
      } else if (position < static_cast<float>(n) + 0.5f) {
        cells.threshold[cell] = threshold;
      }
    }
  }
  return cells;
}

alignas(64) constexpr Cells kCells = make_cells();

inline Integers nearest_level(Floats value) {
  // Beyond the outermost thresholds, +-0.87, the code does not change. The upper bound keeps 1 out of cell -16.
  const __m512 limited = _mm512_min_ps(_mm512_max_ps(value.v, _mm512_set1_ps(-1.0f)), _mm512_set1_ps(0.9375f));
  const __m512 shifted = _mm512_fmadd_ps(limited, _mm512_set1_ps(16.0f), _mm512_set1_ps(0x1.8p23f));
  const __m512i cell = _mm512_castps_si512(shifted);
  const __m512 threshold =
      _mm512_permutex2var_ps(_mm512_load_ps(kCells.threshold), cell, _mm512_load_ps(kCells.threshold + 16));
  const __m512i below =
      _mm512_permutex2var_epi32(_mm512_load_si512(kCells.below), cell, _mm512_load_si512(kCells.below + 16));
  const __mmask16 above = _mm512_cmp_ps_mask(value.v, threshold, _CMP_GT_OQ);
  return {_mm512_mask_add_epi32(below, above, below, _mm512_set1_epi32(1))};
}
inline Floats level_value(Integers codes) {
  return {_mm512_permutexvar_ps(codes.v, _mm512_loadu_ps(kNormalFloat4))};
}
inline void store_nibbles(uint8_t* target, const Integers codes[4]) {
  const __m512i first_shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
  __m512i words = _mm512_setzero_si512();
  for (int k = 0; k < 4; k++) {
    const __m512i shift = _mm512_add_epi32(first_shift, _mm512_set1_epi32(8 * k));
    words = _mm512_or_si512(words, _mm512_sllv_epi32(codes[k].v, shift));
  }
  const __m256i packed = _mm256_or_si256(_mm512_castsi512_si256(words), _mm512_extracti64x4_epi64(words, 1));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), packed);
}

struct FixedBlock {
  __m512i first, second;  // int16, in kWeightUnits
  __m512i rounded;        // int8, in kLevelUnits, in the order that _mm512_packs_epi16 gives
};

inline FixedBlock to_fixed(const Floats weights[4], float inverse_magnitude) {
  const __m512 factor = _mm512_set1_ps(inverse_magnitude * kWeightUnits);
  __m512i numbers[4];
  for (int k = 0; k < 4; k++) numbers[k] = _mm512_cvtps_epi32(_mm512_mul_ps(weights[k].v, factor));
  FixedBlock block;
  block.first = _mm512_packs_epi32(numbers[0], numbers[1]);
  block.second = _mm512_packs_epi32(numbers[2], numbers[3]);
  const __m512i level_factor = _mm512_set1_epi16(kLevelFactor);
  block.rounded = _mm512_packs_epi16(_mm512_mulhrs_epi16(block.first, level_factor),
                                     _mm512_mulhrs_epi16(block.second, level_factor));
  return block;
}

inline TrialSums try_scale(const FixedBlock& block, int16_t factor) {
  const __m512i factors = _mm512_set1_epi16(factor);
  const __m512i numbers = _mm512_packs_epi16(_mm512_mulhrs_epi16(block.first, factors),
                                             _mm512_mulhrs_epi16(block.second, factors));
  const int8_t* table = kTrialLevels.of;
  const __m512i positive = _mm512_permutex2var_epi8(_mm512_load_si512(table), numbers, _mm512_load_si512(table + 64));
  const __m512i negative =
      _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), numbers, _mm512_load_si512(table + 192));
  const __mmask64 below = _mm512_movepi8_mask(numbers);
  // Below zero, negated levels meet negated weights: one factor of _mm512_maddubs_epi16 must not be negative.
  const __m512i level = _mm512_abs_epi8(_mm512_mask_blend_epi8(below, positive, negative));
  const __m512i weight = _mm512_mask_sub_epi8(block.rounded, below, _mm512_setzero_si512(), block.rounded);
  const __m512i ones = _mm512_set1_epi16(1);
  const __m512i product = _mm512_madd_epi16(_mm512_maddubs_epi16(level, weight), ones);
  const __m512i square = _mm512_madd_epi16(_mm512_maddubs_epi16(level, level), ones);
  const __m512i both = _mm512_add_epi32(_mm512_unpacklo_epi32(product, square), _mm512_unpackhi_epi32(product, square));
  const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return {_mm_cvtsi128_si32(two), _mm_extract_epi32(two, 1)};
}

}  // namespace
}  // namespace layerstream::cpu::avx512
