// Sixteen float lanes as two AVX2 registers; what each operation means is said in native/cpu/scalar/simd.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define LAYERSTREAM_ISA avx2

namespace layerstream::cpu::avx2 {
namespace {

struct Floats {
  __m256 low, high;
};
struct Integers {
  __m256i low, high;
};

constexpr int kTileRows = 4;
constexpr int kTileVectors = 1;

// All ones in the first `count` of 8 lanes.
inline __m256i first_lanes(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Floats broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Floats load(const float* source) { return {_mm256_loadu_ps(source), _mm256_loadu_ps(source + 8)}; }
inline Floats load(const float* source, uint32_t count) {
  const int lanes = static_cast<int>(count);
  return {_mm256_maskload_ps(source, first_lanes(lanes)),
          lanes > 8 ? _mm256_maskload_ps(source + 8, first_lanes(lanes - 8)) : _mm256_setzero_ps()};
}
inline void store(float* target, Floats value) {
  _mm256_storeu_ps(target, value.low);
  _mm256_storeu_ps(target + 8, value.high);
}
inline void store(float* target, Floats value, uint32_t count) {
  const int lanes = static_cast<int>(count);
  _mm256_maskstore_ps(target, first_lanes(lanes), value.low);
  if (lanes > 8) _mm256_maskstore_ps(target + 8, first_lanes(lanes - 8), value.high);
}

inline __m128i load_halves(const uint8_t* source) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(source)); }
inline void prefetch(const float* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1); }

inline Floats load_f32(const uint8_t* source) {
  return {_mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source))),
          _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + 32)))};
}
inline Floats load_f16(const uint8_t* source) {
  return {_mm256_cvtph_ps(load_halves(source)), _mm256_cvtph_ps(load_halves(source + 16))};
}
inline Floats load_bf16(const uint8_t* source) {
  const __m256i low = _mm256_cvtepu16_epi32(load_halves(source));
  const __m256i high = _mm256_cvtepu16_epi32(load_halves(source + 16));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
}

inline __m256 load_8_int8(const uint8_t* source) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))));
}
inline Floats load_int8(const uint8_t* source) { return {load_8_int8(source), load_8_int8(source + 8)}; }

inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats maximum(Floats a, Floats b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  return {_mm256_blendv_ps(otherwise.low, if_less.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
          _mm256_blendv_ps(otherwise.high, if_less.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

inline float sum(Floats value) {
  const __m256 eight = _mm256_add_ps(value.low, value.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(Floats value) {
  const __m256 eight = _mm256_max_ps(value.low, value.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline __m256 scale_by_power(__m256 value, __m256 shifted) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), exponent));
}
inline Floats scale_by_power(Floats value, Floats shifted) {
  return {scale_by_power(value.low, shifted.low), scale_by_power(value.high, shifted.high)};
}

inline Integers absolute_bits(Floats value) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  return {_mm256_and_si256(_mm256_castps_si256(value.low), mask),
          _mm256_and_si256(_mm256_castps_si256(value.high), mask)};
}
inline Integers maximum(Integers a, Integers b) {
  return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
}
inline int32_t largest(Integers value) {
  const __m256i eight = _mm256_max_epi32(value.low, value.high);
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1)));
}

inline void store_int8(int8_t* target, Floats value) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(value.low), _mm256_cvtps_epi32(value.high));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), bytes);
}

inline void transpose8(const __m256 rows[8], __m256 columns[8]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int g = 0; g < 8; g += 4) {
    b[g] = _mm256_shuffle_ps(a[g], a[g + 2], 0x44);
    b[g + 1] = _mm256_shuffle_ps(a[g], a[g + 2], 0xee);
    b[g + 2] = _mm256_shuffle_ps(a[g + 1], a[g + 3], 0x44);
    b[g + 3] = _mm256_shuffle_ps(a[g + 1], a[g + 3], 0xee);
  }
  for (int c = 0; c < 4; c++) {
    columns[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    columns[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}

inline void transpose(Floats vectors[16]) {
  __m256 rows[8], columns[4][8];
  for (int quarter = 0; quarter < 4; quarter++) {
    for (int i = 0; i < 8; i++) {
      const Floats& source = vectors[(quarter & 1) * 8 + i];
      rows[i] = quarter < 2 ? source.low : source.high;
    }
    transpose8(rows, columns[quarter]);
  }
  for (int i = 0; i < 8; i++) {
    vectors[i] = {columns[0][i], columns[1][i]};
    vectors[8 + i] = {columns[2][i], columns[3][i]};
  }
}

}  // namespace
}  // namespace layerstream::cpu::avx2
