// What matrix_vnni.cc multiplies: groups of 128 columns as 16-bit integers, of six rows and of 16 or 32 tokens.
#pragma once

#include "../avx512/simd.h"

namespace layerstream::cpu::vnni {

namespace {

using avx512::Floats;

constexpr uint32_t kLanes = 16;
constexpr uint32_t kGroup = 128;
constexpr uint32_t kPairs = kGroup / 2;
constexpr uint32_t kVectors = kGroup / kLanes;
constexpr uint32_t kTileTokens = 2 * kLanes;
constexpr uint32_t kTileRows = 6;

// A group is blocks of `block` columns with a scale each, in which the products of `part` columns are summed exactly.
template <uint32_t block, uint32_t part>
struct Layout {
  static constexpr uint32_t kBlock = block;
  static constexpr uint32_t kBlocks = kGroup / block;
  static constexpr uint32_t kPart = part;
  static_assert(kGroup % block == 0 && block % part == 0);
};

template <class Layout>
struct alignas(64) RowGroup {
  int16_t codes[kTileRows][kGroup];
  float scales[Layout::kBlocks][kLanes];
};

template <class Layout, uint32_t kTokens>
struct alignas(64) TokenGroup {
  int16_t codes[kPairs][kTokens][2];
  float scales[Layout::kBlocks][kTokens];
};

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
constexpr uint32_t quotient_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
constexpr uint32_t groups_of(uint32_t columns) { return quotient_up(columns, kGroup); }

constexpr float kLargestInteger = 32767.0f;

inline float times_power(float value, float exponent) {
  return exponent == 0.0f ? value : _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(value), _mm_set_ss(exponent)));
}

// The columns of a group, of which `columns` are left in the row; 0 past the end.
inline void load_group(const float* input, uint32_t columns, Floats values[kVectors]) {
  for (uint32_t v = 0; v < kVectors; ++v) {
    const uint32_t first = v * kLanes;
    values[v] = columns >= first + kLanes ? avx512::load(input + first)
                : columns > first         ? avx512::load(input + first, columns - first)
                                          : avx512::broadcast(0.0f);
  }
}

}  // namespace

}  // namespace layerstream::cpu::vnni
