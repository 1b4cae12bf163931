// bf16_window: weights become bfloat16 again in registers and are multiplied as those of bf16 are, by the same additions.
#pragma once

#include "../avx512/window_cursor.h"
#include "vector_rows.h"

namespace layerstream::cpu::vnni {
namespace {

constexpr uint32_t kWindowStep = 64;
constexpr size_t kStepPlace = 64, kStepCode = 24;  // bytes
constexpr size_t kStepBytes = kStepPlace + kStepCode;

// Of 32 columns.
struct Activations {
  __m512bh high, low;

  explicit Activations(const BfloatPair& pair)
      : high((__m512bh)_mm512_load_si512(pair.high)), low((__m512bh)_mm512_load_si512(pair.low)) {}

  // In the order of additions of BfloatDot.
  __m512 add(__m512 sum, __m512i weights) const {
    return _mm512_dpbf16_ps(_mm512_dpbf16_ps(sum, (__m512bh)weights, low), (__m512bh)weights, high);
  }
};

struct WindowDot {
  uint32_t columns, capacity;
  size_t data;   // where in a row the weights begin
  size_t ahead;  // to the next rows, which are fetched while these are multiplied

  WindowDot(uint32_t columns, uint32_t block)
      : columns(columns),
        capacity(block),
        data(block + size_t{kWindowHeaderBytes} * divide_up(columns, kWindowColumns)),
        ahead(kRows * row_bytes(Format::kBF16Window, columns, block)) {}

  void operator()(Rows& rows, const uint8_t* prepared, avx512::Floats* accumulators) const {
    const auto* pair = reinterpret_cast<const BfloatPair*>(prepared);
    __m512 sums[kRows];
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    size_t header = capacity, places = data;
    for (uint32_t column = 0; column < columns; column += kWindowColumns, header += kWindowHeaderBytes) {
      const uint32_t width = std::min(kWindowColumns, columns - column);
      const uint32_t steps = divide_up(width, kWindowStep);
      avx512::WindowCursor cursors[kRows];
      for (uint32_t r = 0; r < kRows; ++r) {
        cursors[r] = cursor_at(rows.row[r], header);
        // Escapes and headers lie before the weights: each window fetches a part of them.
        fetch(rows.row[r] + ahead + size_t{column} * data / columns);
      }
      const size_t codes = places + steps * kStepPlace;
      const auto decode = [&](uint32_t r, uint32_t step, __m512i words[2]) {
        const uint8_t* const row = rows.row[r];
        cursors[r].decode(row + places + step * kStepPlace, row + codes + step * kStepCode, words);
      };
      const uint32_t whole = width / kWindowStep;
      for (uint32_t step = 0; step < whole; ++step, pair += 2) {
        const Activations first(pair[0]), second(pair[1]);
        for (uint32_t r = 0; r < kRows; ++r) {
          fetch(rows.row[r] + ahead + places + step * kStepBytes);
          fetch(rows.row[r] + ahead + places + step * kStepBytes + kStepBytes / 2);
          __m512i words[2];
          decode(r, step, words);
          sums[r] = second.add(first.add(sums[r], words[0]), words[1]);
        }
      }
      if (whole < steps) {
        // Past the end, weights are multiplied by zeros, or not at all.
        const bool two = whole * kWindowStep + 32 < width;
        for (uint32_t r = 0; r < kRows; ++r) {
          __m512i words[2];
          decode(r, whole, words);
          sums[r] = Activations(pair[0]).add(sums[r], words[0]);
          if (two) sums[r] = Activations(pair[1]).add(sums[r], words[1]);
        }
      }
      places = codes + steps * kStepCode;
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }

 private:
  static void fetch(const uint8_t* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1); }

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
