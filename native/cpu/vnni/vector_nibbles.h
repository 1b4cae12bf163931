// Weights of four bits, 64 columns in 32 bytes: 4bit, nf4 and uint4. Their codes are looked up as int16.
#pragma once

#include "level_table.h"
#include "vector_plain.h"

namespace layerstream::cpu::vnni {
namespace {

// A lane gets eight products; rounding may add half to each value.
constexpr float kNormalFloatLaneSum = 136900.0f;
static_assert(int64_t{15684} * (136900 + 4) <= std::numeric_limits<int32_t>::max());

// Two steps of 4bit codes are 32 words. Values 32 * n ... belong to nibble n of these words.
constexpr StepOrder make_lane_order() {
  StepOrder order = {};
  for (uint32_t p = 0; p < 128; ++p) {
    const uint32_t nibble = p / 32, step = p % 32 / 16, word = p % 16;
    order.column[p] = static_cast<uint16_t>(step * 64 + (4 * (word % 2) + nibble) * 8 + word / 2);
  }
  return order;
}
constexpr StepOrder kLaneOrder = make_lane_order();
constexpr IntegerRule kLaneRule = {1.0f / kNormalFloatUnit, kNormalFloatLaneSum, LaneColumns::kEighth, &kLaneOrder};

// The others: byte l of 16 has columns l and 16 + l of 32.
constexpr StepOrder make_byte_order() {
  StepOrder order = {};
  for (uint32_t p = 0; p < 128; ++p) {
    const uint32_t nibble = p / 32, byte = p % 32 * 2 + nibble / 2;
    order.column[p] = static_cast<uint16_t>(byte / 16 * 32 + byte % 16 + 16 * (nibble % 2));
  }
  return order;
}
constexpr StepOrder kByteOrder = make_byte_order();
constexpr IntegerRule kNormalFloatRule = {1.0f / kNormalFloatUnit, kNormalFloatLaneSum, LaneColumns::kFours, &kByteOrder};
constexpr IntegerRule kCodeRule = {1.0f, 0, LaneColumns::kFours, &kByteOrder};

// What distinguishes a format: its table, and `factors` of the 16 groups of 64 columns from `step` on, of which `mask` are
// in the row, times the scales of the activations. Offsets go to `sum`.
struct LaneNibbles {
  static constexpr const LevelTable& kTable = kNormalFloatTable;
  static constexpr uint32_t kFetchedLines = kScaleLines;
  size_t scales;

  LaneNibbles(uint32_t columns, uint32_t) : scales(size_t{divide_up(columns, 64)} * 32) {}

  __m512 factors(const uint8_t* row, uint32_t step, __mmask16 mask, const IntegerChunk<64>& x, __m512&) const {
    const __m256i halves = _mm256_maskz_loadu_epi16(mask, row + scales + 2 * size_t{step});
    return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_load_ps(x.scales));
  }
};

struct NormalFloatNibbles {
  static constexpr const LevelTable& kTable = kNormalFloatTable;
  static constexpr uint32_t kFetchedLines = 2 * kScaleLines;  // float32
  size_t scales;

  NormalFloatNibbles(uint32_t columns, uint32_t) : scales(size_t{divide_up(columns, 64)} * 32) {}

  __m512 factors(const uint8_t* row, uint32_t step, __mmask16 mask, const IntegerChunk<64>& x, __m512&) const {
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, row + scales + 4 * size_t{step}), _mm512_load_ps(x.scales));
  }
};

struct IntegerNibbles {
  static constexpr const LevelTable& kTable = kCodeTable;
  static constexpr uint32_t kFetchedLines = kScaleLines;
  size_t scales;
  uint32_t groups, shift;  // a group has 1 << shift times 64 columns, or all of them

  IntegerNibbles(uint32_t columns, uint32_t block)
      : scales(size_t{divide_up(columns, 64)} * 32),
        groups(divide_up(columns, block)),
        shift(groups == 1 ? 31 : static_cast<uint32_t>(std::countr_zero(block / 64))) {}

  static bool supports(uint32_t block, uint32_t columns) {
    return block >= columns || (block >= 64 && std::has_single_bit(block));
  }

  __m512 factors(const uint8_t* row, uint32_t step, __mmask16, const IntegerChunk<64>& x, __m512& sum) const {
    const ChunkScales chunk(step, shift, groups);
    const __m512 scale = chunk(row + scales);
    const __m512 zero = chunk.bytes(row + scales + 2 * size_t{groups});
    sum = _mm512_fnmadd_ps(_mm512_mul_ps(scale, zero), _mm512_load_ps(x.sums), sum);
    return _mm512_mul_ps(scale, _mm512_load_ps(x.scales));
  }
};

template <class Scheme>
struct NibbleDot {
  uint32_t steps;
  Scheme scheme;

  NibbleDot(uint32_t columns, uint32_t block) : steps(divide_up(columns, 64)), scheme(columns, block) {}

  void operator()(Rows& rows, const uint8_t* prepared, avx512::Floats* accumulators) const {
    const auto* chunk = reinterpret_cast<const IntegerChunk<64>*>(prepared);
    __m512 sums[kRows];
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    for (uint32_t step = 0; step < steps; step += kGroups, ++chunk) {
      const uint32_t count = std::min(kGroups, steps - step);
      const auto in_row = static_cast<__mmask16>((1u << count) - 1);
      __m512 factors[kRows];
      rows.fetch(Scheme::kFetchedLines);
      for (uint32_t r = 0; r < kRows; ++r) factors[r] = scheme.factors(rows.row[r], step, in_row, *chunk, sums[r]);
      __m512i place = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
      const int16_t* values = chunk->values;
      uint32_t pair = 0;
      for (; pair + 1 < count; pair += 2, values += 128) {
        rows.fetch(kRows);
        const auto load = [&](uint32_t r) { return _mm512_loadu_si512(rows.row[r] + (size_t{step} + pair) * 32); };
        add_pair(load, values, place, factors, sums);
        place = _mm512_add_epi32(place, _mm512_set1_epi32(2));
      }
      // A masked load costs more than an instruction; codes of 0 meet values of 0.
      if (pair < count) {
        const auto load = [&](uint32_t r) {
          return _mm512_maskz_loadu_epi32(0xff, rows.row[r] + (size_t{step} + pair) * 32);
        };
        add_pair(load, values, place, factors, sums);
      }
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }

 private:
  // Two steps of every row: `load(r)` are their codes, `place` where their scales are among `factors`.
  template <class Load>
  static void add_pair(const Load& load, const int16_t* values, __m512i place, const __m512* factors, __m512* sums) {
    const __m512i table = _mm512_load_si512(Scheme::kTable.level);
    const __m512i x0 = _mm512_load_si512(values), x1 = _mm512_load_si512(values + 32);
    const __m512i x2 = _mm512_load_si512(values + 64), x3 = _mm512_load_si512(values + 96);
    __m512i codes[kRows], dots[kRows];
    for (uint32_t r = 0; r < kRows; ++r) {
      codes[r] = load(r);
      dots[r] = _mm512_madd_epi16(_mm512_permutexvar_epi16(codes[r], table), x0);
    }
    for (uint32_t r = 0; r < kRows; ++r) {
      dots[r] = _mm512_dpwssd_epi32(dots[r], _mm512_permutexvar_epi16(_mm512_srli_epi16(codes[r], 4), table), x1);
    }
    for (uint32_t r = 0; r < kRows; ++r) {
      dots[r] = _mm512_dpwssd_epi32(dots[r], _mm512_permutexvar_epi16(_mm512_srli_epi16(codes[r], 8), table), x2);
    }
    for (uint32_t r = 0; r < kRows; ++r) {
      dots[r] = _mm512_dpwssd_epi32(dots[r], _mm512_permutexvar_epi16(_mm512_srli_epi16(codes[r], 12), table), x3);
    }
    for (uint32_t r = 0; r < kRows; ++r) {
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[r]), _mm512_permutexvar_ps(place, factors[r]), sums[r]);
    }
  }
};

}  // namespace
}  // namespace layerstream::cpu::vnni
