// How rows are multiplied and weights decoded, in AVX2; what each operation means is said in native/cpu/generic.
#pragma once

#include "../../backend/format.h"
#include "../matmul_blocking.h"
#include "simd.h"

namespace layerstream::cpu::avx2 {
namespace {

constexpr uint32_t kVectorRows = 4;
constexpr uint32_t kQuantizedRows = 2;
constexpr uint32_t kPanelRows = 2;
constexpr uint32_t kTileTokens = 3;
constexpr uint32_t kSumRows = 1;

inline void prefetch(const uint8_t* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0); }

inline void keep_in_register(Floats& value) {
#if defined(__GNUC__)
  __asm__("" : "+x"(value.low), "+x"(value.high));
#endif
}

inline void add_sums(const Floats* values, float* sums) { *sums += sum(*values); }

// Permutations look at the low three bits of an index; the fourth, moved to the sign, picks between two of them.
inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256 low_table = _mm256_mul_ps(_mm256_loadu_ps(kNormalFloat4), _mm256_set1_ps(scale));
  const __m256 high_table = _mm256_mul_ps(_mm256_loadu_ps(kNormalFloat4 + 8), _mm256_set1_ps(scale));
  const auto look_up = [&](int shift) {
    const __m256i index = _mm256_srli_epi32(words, shift);
    const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28 - shift));
    const __m256 low = _mm256_permutevar8x32_ps(low_table, index);
    return _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(high_table, index), is_high);
  };
  const int shift = static_cast<int>(8 * v);
  return {look_up(shift), look_up(shift + 4)};
}

// What generic/step_codec.h asks for.

constexpr bool kFastLookUp = false;
constexpr bool kInlineDecoding = true;

inline Integers widen_bytes(__m128i bytes) {
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes))};
}
inline Integers load_bytes(const uint8_t* source) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source + 8)))};
}
inline Integers from_bytes(uint64_t low, uint64_t high) {
  return widen_bytes(_mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low)));
}
template <int kRight>
inline Integers shift(Integers value) {
  if constexpr (kRight > 0) return {_mm256_srli_epi32(value.low, kRight), _mm256_srli_epi32(value.high, kRight)};
  if constexpr (kRight < 0) return {_mm256_slli_epi32(value.low, -kRight), _mm256_slli_epi32(value.high, -kRight)};
  return value;
}
inline Integers operator&(Integers value, int32_t mask) {
  return {_mm256_and_si256(value.low, _mm256_set1_epi32(mask)), _mm256_and_si256(value.high, _mm256_set1_epi32(mask))};
}
inline Integers operator|(Integers a, Integers b) {
  return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
}
inline Integers or_where(Integers value, uint32_t lanes, int32_t bits) {
  const __m256i all = _mm256_set1_epi32(static_cast<int>(lanes)), added = _mm256_set1_epi32(bits);
  const auto selected = [&](__m256i lane) {
    return _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_and_si256(all, lane), lane), added);
  };
  const __m256i first = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return {_mm256_or_si256(value.low, selected(first)),
          _mm256_or_si256(value.high, selected(_mm256_slli_epi32(first, 8)))};
}
inline Floats to_floats(Integers value) {
  return {_mm256_cvtepi32_ps(value.low), _mm256_cvtepi32_ps(value.high)};
}
inline Floats bits_to_floats(Integers value) {
  return {_mm256_castsi256_ps(value.low), _mm256_castsi256_ps(value.high)};
}
// As in levels().
inline Floats look_up(Floats table, Integers index) {
  const auto of = [&](__m256i lanes) {
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, lanes), _mm256_permutevar8x32_ps(table.high, lanes),
                            _mm256_castsi256_ps(_mm256_slli_epi32(lanes, 28)));
  };
  return {of(index.low), of(index.high)};
}
inline Floats broadcast_half(const uint8_t* source) {
  int16_t half;
  std::memcpy(&half, source, sizeof half);
  const __m256 value = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_set1_epi16(half)));
  return {value, value};
}

struct Bytes {
  __m256i low, high;
};

inline __m256i load_32(const uint8_t* source) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)); }
inline Bytes load_64(const uint8_t* source) { return {load_32(source), load_32(source + 32)}; }
inline Bytes load_twice(const uint8_t* source) { return {load_32(source), load_32(source)}; }
template <int kRight>
inline __m256i shift_words(__m256i value) {
  if constexpr (kRight > 0) return _mm256_srli_epi16(value, kRight);
  if constexpr (kRight < 0) return _mm256_slli_epi16(value, -kRight);
  return value;
}
template <int kFirst, int kSecond>
inline Bytes shift_bytes(Bytes value) {
  return {shift_words<kFirst>(value.low), shift_words<kSecond>(value.high)};
}
inline Bytes merge(Bytes a, uint8_t mask_a, Bytes b, uint8_t mask_b) {
  const __m256i first = _mm256_set1_epi8(static_cast<char>(mask_a));
  const __m256i second = _mm256_set1_epi8(static_cast<char>(mask_b));
  return {_mm256_or_si256(_mm256_and_si256(a.low, first), _mm256_and_si256(b.low, second)),
          _mm256_or_si256(_mm256_and_si256(a.high, first), _mm256_and_si256(b.high, second))};
}
template <uint32_t v>
inline Floats to_floats(Bytes value) {
  return to_floats(widen_bytes(_mm256_extracti128_si256(v < 2 ? value.low : value.high, v % 2)));
}

// A code's bits are those of a float16 whose exponent is 8 too small, once they are moved and the copies of the sign
// taken out. NaN has to be made.
inline void decode_float8(const uint8_t* codes, Floats* weights) {
  const __m256 factor = _mm256_set1_ps(256.0f);
  for (int v = 0; v < 4; v++) {
    const __m256i words = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load_halves(codes + 16 * v)), 7);
    const __m256i magnitude = _mm256_and_si256(words, _mm256_set1_epi16(0x3f80));
    const __m256i is_nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
    const __m256i moved = _mm256_and_si256(words, _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    const __m256i halves = _mm256_or_si256(moved, _mm256_srli_epi16(is_nan, 1));
    weights[v] = {_mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), factor),
                  _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), factor)};
  }
}

}  // namespace
}  // namespace layerstream::cpu::avx2
