// Where a row of bf16_window stands, in AVX-512; see generic/window_cursor.h.
#pragma once

#include "decode.h"

namespace layerstream::cpu::avx512 {
namespace {

// Three bytes of the codes of a step, which are the last 24 of 32, lowest in each quadword.
constexpr ByteOrder make_code_spread() {
  ByteOrder order = {};
  for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>(i % 8 < 3 ? 8 + 3 * (i / 8) + i % 8 : 0);
  return order;
}
constexpr ByteOrder kCodeSpread = make_code_spread();

// Words 16 * v ... of 32 in the upper halves of lanes.
struct alignas(64) WordOrder {
  uint16_t words[2][32];
};
constexpr WordOrder make_upper_words() {
  WordOrder order = {};
  for (int i = 0; i < 32; i++) order.words[i / 16][2 * (i % 16) + 1] = static_cast<uint16_t>(i);
  return order;
}
constexpr WordOrder kUpperWords = make_upper_words();

class WindowCursor {
 public:
  WindowCursor() = default;

  WindowCursor(const uint8_t* escapes, uint8_t least)
      : escapes_(escapes),
        exponents_(_mm512_add_epi8(_mm512_set1_epi64(0x0706050403020100), _mm512_set1_epi8(static_cast<char>(least)))),
        escape_(_mm512_set1_epi8(static_cast<char>(least + 7))) {}

  // The weights of a step as bfloat16: columns 0 to 31 and 32 to 63, and past the end whatever is finite.
  void decode(const uint8_t* places, const uint8_t* codes, __m512i words[2]) {
    const __m512i last = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes - 8)));
    const __m512i spread = _mm512_permutexvar_epi8(_mm512_load_si512(kCodeSpread.bytes), last);
    // Three bits of its neighbour follow each code: the table has its eight entries for each of their values.
    const __m512i code = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x15120f0c09060300), spread);
    const __m512i inside = _mm512_permutexvar_epi8(code, exponents_);
    const __mmask64 escaped = _mm512_cmpeq_epi8_mask(inside, escape_);
    const __m512i exponent = _mm512_mask_expand_epi8(inside, escaped, _mm512_loadu_si512(escapes_));
    escapes_ += _mm_popcnt_u64(_cvtmask64_u64(escaped));
    // From the highest bit on: exponent, mantissa, sign. A rotation brings the sign to the top.
    const __m512i rest = _mm512_loadu_si512(places);
    const __m512i first = _mm512_unpacklo_epi8(rest, exponent), second = _mm512_unpackhi_epi8(rest, exponent);
    words[0] = _mm512_shrdi_epi16(first, first, 1);
    words[1] = _mm512_shrdi_epi16(second, second, 1);
  }

  void decode(const uint8_t* places, const uint8_t* codes, uint32_t columns, Floats weights[4]) {
    constexpr __mmask32 kUpper = 0xaaaaaaaa;
    __m512i words[2];
    decode(places, codes, words);
    for (uint32_t v = 0; v < 4; ++v) {
      const __m512i order = _mm512_load_si512(kUpperWords.words[v % 2]);
      weights[v].v = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpper, order, words[v / 2]));
    }
    if (columns >= 64) return;
    for (uint32_t v = 0; v < 4; ++v) {
      const uint32_t present = columns <= 16 * v ? 0 : columns - 16 * v < 16 ? columns - 16 * v : 16;
      weights[v].v = _mm512_maskz_mov_ps(first_lanes(present), weights[v].v);
    }
  }

 private:
  const uint8_t* escapes_;
  __m512i exponents_;  // of codes 0 to 7, eight times
  __m512i escape_;     // what code 7 gives
};

}  // namespace
}  // namespace layerstream::cpu::avx512
