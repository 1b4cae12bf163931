// The walk over the rows of a one-token product, and the parts that all formats share. A row's sum is made by the same
// additions wherever it lies: sixteen lanes that gather the row's chunks in order, folded at the end in a fixed tree.
#pragma once

#include "activations.h"

#include "../generic/write_sums.h"

namespace layerstream::cpu::vnni {
namespace {

// Rows at once: they share the activations, and are as many streams as keep the memory busy.
constexpr uint32_t kRows = 4;

// How far ahead of the rows at work memory is fetched: more than it delivers in its latency.
constexpr size_t kFetchAhead = 32 << 10;

struct Rows {
  const uint8_t* row[kRows];
  const uint8_t* next;  // to fetch: rows lie one behind the other

  // In step with the bytes that are used.
  void fetch(uint32_t lines) {
    for (uint32_t line = 0; line < lines; ++line, next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
  }
};

// Sums of rows by Dot: dot(rows, prepared parts of the token, accumulators).
template <class Dot>
void multiply_rows(const MatmulArgs& args, const uint8_t* prepared, size_t stride, const Dot& dot) {
  for (uint32_t first = 0; first < args.rows; first += kRows) {
    const uint32_t count = std::min(kRows, args.rows - first);
    Rows rows;
    // Where rows run out, the last one stands in and its extra results are dropped.
    for (uint32_t r = 0; r < kRows; ++r) rows.row[r] = args.weight + (first + std::min(r, count - 1)) * args.row_bytes;
    for (uint32_t token = 0; token < args.tokens; ++token) {
      const uint8_t* const x = prepared + token * stride;
      avx512::Floats accumulators[kRows];
      for (uint32_t r = 0; r < kRows; ++r) accumulators[r] = avx512::broadcast(0.0f);
      rows.next = rows.row[0] + kFetchAhead;
      dot(rows, x + sizeof(TokenHeader), accumulators);
      float sums[kRows] = {};
      for (uint32_t r = 0; r < kRows; r += avx512::kSumRows) avx512::add_sums(accumulators + r, sums + r);
      const float factor = reinterpret_cast<const TokenHeader*>(x)->factor;
      for (float& sum : sums) sum *= factor;
      avx512::write_sums(args, token, first, sums, count);
    }
  }
}

}  // namespace
}  // namespace layerstream::cpu::vnni
