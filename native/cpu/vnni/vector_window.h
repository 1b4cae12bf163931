// bf16_window: weights become bfloat16 again in registers and are multiplied as those of bf16 are, by the same additions.
#pragma once

#include "vector_rows.h"

namespace layerstream::cpu::vnni {
namespace {

constexpr uint32_t kWindowStep = 64;
constexpr size_t kStepPlace = 64, kStepCode = 24;  // bytes
// Lines that a step of kRows rows takes, with its share of headers and escapes.
constexpr uint32_t kStepLines = 6;

// Where a row stands in a window.
struct WindowCursor {
  const uint8_t* escapes;
  __m512i exponents;  // of codes 0 to 7, eight times
  __m512i escape;     // of code 7, which is no exponent

  // The first escape of a window lies within the capacity, and in any row as many bytes follow the capacity as a window
  // has columns: whatever the bytes say, 64 of them can be read at each step.
  WindowCursor() = default;
  WindowCursor(const uint8_t* row, uint32_t capacity, const uint8_t* header) {
    uint16_t begin;
    std::memcpy(&begin, header + 1, sizeof begin);
    escapes = row + std::min<uint32_t>(begin, capacity);
    const __m512i codes = _mm512_set1_epi64(0x0706050403020100);
    exponents = _mm512_add_epi8(codes, _mm512_set1_epi8(static_cast<char>(header[0])));
    escape = _mm512_set1_epi8(static_cast<char>(header[0] + 7));
  }

  // The 64 weights of a step: columns 0 to 31 and 32 to 63.
  void decode(const uint8_t* place, const uint8_t* codes, __m512i& first, __m512i& second) {
    const __m512i last = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes - 8)));
    const __m512i spread = _mm512_permutexvar_epi8(_mm512_load_si512(avx512::kCodeSpread.bytes), last);
    // Three bits of a neighbour follow each code; the table has its eight entries for all of them.
    const __m512i code = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x15120f0c09060300), spread);
    __m512i exponent = _mm512_permutexvar_epi8(code, exponents);
    const __mmask64 escaped = _mm512_cmpeq_epi8_mask(exponent, escape);
    exponent = _mm512_mask_expand_epi8(exponent, escaped, _mm512_loadu_si512(escapes));
    escapes += _mm_popcnt_u64(_cvtmask64_u64(escaped));
    // exponent, mantissa, sign, from the highest bit on: a rotation brings the sign to the top.
    const __m512i rest = _mm512_loadu_si512(place);
    first = _mm512_unpacklo_epi8(rest, exponent);
    second = _mm512_unpackhi_epi8(rest, exponent);
    first = _mm512_shrdi_epi16(first, first, 1);
    second = _mm512_shrdi_epi16(second, second, 1);
  }
};

struct WindowDot {
  uint32_t columns, capacity;
  size_t data;

  WindowDot(uint32_t columns, uint32_t block)
      : columns(columns), capacity(block), data(block + size_t{kWindowHeaderBytes} * divide_up(columns, kWindowColumns)) {}

  void operator()(Rows& rows, const uint8_t* prepared, avx512::Floats* accumulators) const {
    const auto* pair = reinterpret_cast<const BfloatPair*>(prepared);
    __m512 sums[kRows];
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    size_t header = capacity, places = data;
    for (uint32_t column = 0; column < columns; column += kWindowColumns, header += kWindowHeaderBytes) {
      const uint32_t width = std::min(kWindowColumns, columns - column);
      const uint32_t steps = divide_up(width, kWindowStep);
      WindowCursor cursors[kRows];
      for (uint32_t r = 0; r < kRows; ++r) cursors[r] = WindowCursor(rows.row[r], capacity, rows.row[r] + header);
      const size_t codes = places + steps * kStepPlace;
      for (uint32_t step = 0; step < steps; ++step, pair += 2) {
        // Past the end, weights are multiplied by zeros, or not at all.
        const bool whole = step * kWindowStep + 32 < width;
        const BfloatPair* const next = whole ? pair + 1 : pair;
        const __m512bh high[] = {(__m512bh)_mm512_load_si512(pair->high), (__m512bh)_mm512_load_si512(next->high)};
        const __m512bh low[] = {(__m512bh)_mm512_load_si512(pair->low), (__m512bh)_mm512_load_si512(next->low)};
        rows.fetch(kStepLines);
        for (uint32_t r = 0; r < kRows; ++r) {
          const uint8_t* const row = rows.row[r];
          __m512i first, second;
          cursors[r].decode(row + places + step * kStepPlace, row + codes + step * kStepCode, first, second);
          sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], (__m512bh)first, low[0]), (__m512bh)first, high[0]);
          if (!whole) continue;
          sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], (__m512bh)second, low[1]), (__m512bh)second, high[1]);
        }
      }
      places = codes + steps * kStepCode;
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }
};

}  // namespace
}  // namespace layerstream::cpu::vnni
