// The sixteen values of four-bit codes as int16, for permutations of words.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace layerstream::cpu::vnni {
namespace {

// The largest level of 4bit and nf4 as an integer: of all below 16384, the one with which the others round best.
constexpr float kNormalFloatUnit = 15684.0f;

// A permutation of words looks at five bits of an index, of which the highest is the next code's: every level twice.
struct alignas(64) LevelTable {
  int16_t level[32];
};

constexpr LevelTable make_level_table(const float (&levels)[16], float unit) {
  LevelTable table = {};
  for (int i = 0; i < 32; ++i) {
    const float scaled = levels[i % 16] * unit;
    table.level[i] = static_cast<int16_t>(scaled < 0 ? scaled - 0.5f : scaled + 0.5f);
  }
  return table;
}

constexpr float kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr LevelTable kNormalFloatTable = make_level_table(kNormalFloat4, kNormalFloatUnit);
constexpr LevelTable kCodeTable = make_level_table(kCodes, 1.0f);

}  // namespace
}  // namespace layerstream::cpu::vnni
