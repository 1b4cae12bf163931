// bf16_window: weights become bfloat16 again in registers and are multiplied as those of bf16 are, by the same additions.
#pragma once

#include "../avx512/window_cursor.h"
#include "vector_rows.h"

namespace layerstream::cpu::vnni {
namespace {

constexpr uint32_t kWindowStep = 64;
constexpr size_t kStepPlace = 64, kStepCode = 24;  // bytes
// Lines that a step of kRows rows takes, with its share of headers and escapes.
constexpr uint32_t kStepLines = 6;

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
      avx512::WindowCursor cursors[kRows];
      for (uint32_t r = 0; r < kRows; ++r) cursors[r] = cursor_at(rows.row[r], header);
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
          __m512i words[2];
          cursors[r].decode(row + places + step * kStepPlace, row + codes + step * kStepCode, words);
          const __m512bh first = (__m512bh)words[0], second = (__m512bh)words[1];
          sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], first, low[0]), first, high[0]);
          if (whole) sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], second, low[1]), second, high[1]);
        }
      }
      places = codes + steps * kStepCode;
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }

 private:
  // The first escape of a window lies within the capacity, and in any row as many bytes follow the capacity as a window
  // has columns: whatever the bytes say, 64 of them can be read at each step.
  avx512::WindowCursor cursor_at(const uint8_t* row, size_t header) const {
    uint16_t begin;
    std::memcpy(&begin, row + header + 1, sizeof begin);
    return avx512::WindowCursor(row + std::min<uint32_t>(begin, capacity), row[header]);
  }
};

}  // namespace
}  // namespace layerstream::cpu::vnni
