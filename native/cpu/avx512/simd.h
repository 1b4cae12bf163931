// Sixteen float lanes as one AVX-512 register; what each operation means is said in native/cpu/scalar/simd.h.
#pragma once

// GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for mistakes (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define LAYERSTREAM_ISA avx512

namespace layerstream::cpu::avx512 {
namespace {

struct Floats {
  __m512 v;
};
struct Integers {
  __m512i v;
};

constexpr int kTileRows = 8;
constexpr int kTileVectors = 2;

inline __mmask16 first_lanes(uint32_t count) { return static_cast<__mmask16>((1u << count) - 1); }

inline Floats broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline Floats load(const float* source) { return {_mm512_loadu_ps(source)}; }
inline Floats load(const float* source, uint32_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), source)};
}
inline void store(float* target, Floats value) { _mm512_storeu_ps(target, value.v); }
inline void store(float* target, Floats value, uint32_t count) {
  _mm512_mask_storeu_ps(target, first_lanes(count), value.v);
}

inline void prefetch(const float* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1); }

inline Floats load_f32(const uint8_t* source) { return {_mm512_loadu_ps(source)}; }
inline Floats load_f16(const uint8_t* source) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)))};
}
inline Floats load_bf16(const uint8_t* source) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

inline Floats load_int8(const uint8_t* source) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))))};
}

inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Floats maximum(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), otherwise.v, if_less.v)};
}

inline float sum(Floats value) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(value.v), _mm512_extractf32x8_ps(value.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(Floats value) { return _mm512_reduce_max_ps(value.v); }

inline Floats scale_by_power(Floats value, Floats shifted) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value.v), exponent))};
}

inline Integers absolute_bits(Floats value) {
  return {_mm512_and_si512(_mm512_castps_si512(value.v), _mm512_set1_epi32(0x7fffffff))};
}
inline Integers maximum(Integers a, Integers b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline int32_t largest(Integers value) { return _mm512_reduce_max_epi32(value.v); }

inline void store_int8(int8_t* target, Floats value) {
  const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), bytes);
}

inline void transpose(Floats vectors[16]) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(vectors[i].v, vectors[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(vectors[i].v, vectors[i + 1].v);
  }
  // b[4g + c]: column c of each 4-column group, for rows 4g ... 4g + 3
  for (int g = 0; g < 16; g += 4) {
    b[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[g]), _mm512_castps_pd(a[g + 2])));
    b[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[g]), _mm512_castps_pd(a[g + 2])));
    b[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[g + 1]), _mm512_castps_pd(a[g + 3])));
    b[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[g + 1]), _mm512_castps_pd(a[g + 3])));
  }
  for (int c = 0; c < 4; c++) {
    const __m512 even_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const __m512 odd_low = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const __m512 even_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const __m512 odd_high = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    vectors[c].v = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    vectors[4 + c].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    vectors[8 + c].v = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    vectors[12 + c].v = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

}  // namespace
}  // namespace layerstream::cpu::avx512
