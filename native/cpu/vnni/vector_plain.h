// Weights that lie as elements or signed bytes in the order of columns: bf16 and 8bit.
#pragma once

#include "vector_rows.h"

namespace layerstream::cpu::vnni {
namespace {

struct BfloatDot {
  uint32_t columns;

  void operator()(Rows& rows, const uint8_t* prepared, avx512::Floats* accumulators) const {
    const auto* pair = reinterpret_cast<const BfloatPair*>(prepared);
    __m512 sums[kRows];
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    uint32_t column = 0;
    for (; column + 32 <= columns; column += 32, ++pair) {
      const __m512bh high = (__m512bh)_mm512_load_si512(pair->high), low = (__m512bh)_mm512_load_si512(pair->low);
      rows.fetch(kRows);
      for (uint32_t r = 0; r < kRows; ++r) {
        const uint8_t* const source = rows.row[r] + 2 * size_t{column};
        const __m512bh weights = (__m512bh)_mm512_loadu_si512(source);
        sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], weights, low), weights, high);
      }
    }
    if (column < columns) {
      const auto mask = static_cast<__mmask32>((1u << (columns - column)) - 1);
      const __m512bh high = (__m512bh)_mm512_load_si512(pair->high), low = (__m512bh)_mm512_load_si512(pair->low);
      for (uint32_t r = 0; r < kRows; ++r) {
        const __m512bh weights = (__m512bh)_mm512_maskz_loadu_epi16(mask, rows.row[r] + 2 * size_t{column});
        sums[r] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r], weights, low), weights, high);
      }
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }
};

// Lines that the scales of a chunk take in kRows rows, at two bytes each.
constexpr uint32_t kScaleLines = kRows * 2 * kGroups / 64;

// Float16 scales of the groups of a chunk, from a row's scales of which one covers 1 << shift groups; 0 past the end.
class ChunkScales {
 public:
  // `scales`: how many the row has. `groups`: of the chunks before.
  ChunkScales(uint32_t first_group, uint32_t shift, uint32_t scales)
      : first_(first_group >> shift), mask_(static_cast<__mmask16>((1u << std::min(scales - first_, 16u)) - 1)) {
    const __m512i group = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i place = _mm512_srl_epi32(_mm512_add_epi32(group, _mm512_set1_epi32(static_cast<int>(first_group))),
                                           _mm_cvtsi32_si128(static_cast<int>(shift)));
    order_ = _mm512_sub_epi32(place, _mm512_set1_epi32(static_cast<int>(first_)));
  }

  __m512 operator()(const uint8_t* scales) const {
    const __m256i halves = _mm256_maskz_loadu_epi16(mask_, scales + 2 * size_t{first_});
    return _mm512_permutexvar_ps(order_, _mm512_cvtph_ps(halves));
  }

  // Likewise, of bytes.
  __m512 bytes(const uint8_t* bytes) const {
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask_, bytes + first_));
    return _mm512_permutexvar_ps(order_, _mm512_cvtepi32_ps(wide));
  }

 private:
  uint32_t first_;
  __mmask16 mask_;
  __m512i order_;
};

constexpr IntegerRule kByteRule = {1.0f / 127, 0, LaneColumns::kEighth, nullptr};

// 8bit: kGroup is 32 where blocks are of 32 columns, else 64. A lane gets 2 or 4 products of an int8 and an int16: below
// 4 * 128 * 32767 < 2^24, which float32 holds exactly.
template <uint32_t kGroup>
struct ByteDot {
  uint32_t columns, block_shift, scales;
  size_t code_bytes;

  ByteDot(uint32_t columns, uint32_t block)
      : columns(columns),
        block_shift(static_cast<uint32_t>(std::countr_zero(block / kGroup))),
        scales(divide_up(columns, block)),
        code_bytes(size_t{scales} * block) {}

  void operator()(Rows& rows, const uint8_t* prepared, avx512::Floats* accumulators) const {
    constexpr uint32_t kChunk = kGroups * kGroup;
    const auto* chunk = reinterpret_cast<const IntegerChunk<kGroup>*>(prepared);
    __m512 sums[kRows];
    for (uint32_t r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    for (uint32_t column = 0; column < columns; column += kChunk, ++chunk) {
      alignas(64) float factors[kRows][kGroups];
      const ChunkScales chunk_scales(column / kGroup, block_shift, scales);
      const __m512 input_scales = _mm512_load_ps(chunk->scales);
      rows.fetch(kScaleLines);
      for (uint32_t r = 0; r < kRows; ++r) {
        _mm512_store_ps(factors[r], _mm512_mul_ps(chunk_scales(rows.row[r] + code_bytes), input_scales));
      }
      const uint32_t groups = std::min(kGroups, divide_up(columns - column, kGroup));
      for (uint32_t group = 0; group < groups; ++group) {
        const __m512i first = _mm512_load_si512(chunk->values + group * kGroup);
        const __m512i second = _mm512_load_si512(chunk->values + group * kGroup + kGroup - 32);
        if (kGroup == 64 || group % 2 == 0) rows.fetch(kRows);
        for (uint32_t r = 0; r < kRows; ++r) {
          const uint8_t* const codes = rows.row[r] + column + group * kGroup;
          __m512i sum;
          if constexpr (kGroup == 64) {
            // One load of a line: two of its halves are slower from memory, though not from a cache.
            const __m512i both = _mm512_loadu_si512(codes);
            sum = _mm512_madd_epi16(_mm512_cvtepi8_epi16(_mm512_castsi512_si256(both)), first);
            sum = _mm512_dpwssd_epi32(sum, _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(both, 1)), second);
          } else {
            sum = _mm512_madd_epi16(load_bytes(codes), first);
          }
          sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(factors[r][group]), sums[r]);
        }
      }
    }
    for (uint32_t r = 0; r < kRows; ++r) accumulators[r].v = sums[r];
  }

 private:
  static __m512i load_bytes(const uint8_t* codes) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  }
};

}  // namespace
}  // namespace layerstream::cpu::vnni
