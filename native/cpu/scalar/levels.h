// Weights to kNormalFloat4 and back, in portable C++.
#pragma once

#include "../normal_float.h"
#include "simd.h"

namespace layerstream::cpu::scalar {
namespace {

// The number of kNearestThresholds below each lane.
inline Integers nearest_level(Floats value) {
  Integers codes = {};
  for (float threshold : kNearestThresholds) {
    for (int i = 0; i < 16; i++) codes.lane[i] += value.lane[i] > threshold;
  }
  return codes;
}
inline Floats level_value(Integers codes) {
  return each([&](int i) { return kNormalFloat4[codes.lane[i]]; });
}
// The 32 bytes of a q4 block (format.h); codes[k] are columns 16k ... 16k + 15.
inline void store_nibbles(uint8_t* target, const Integers codes[4]) {
  for (int i = 0; i < 8; i++) {
    uint32_t word = 0;
    for (int j = 0; j < 8; j++) word |= static_cast<uint32_t>(codes[j / 2].lane[(j & 1) * 8 + i]) << (4 * j);
    std::memcpy(target + 4 * i, &word, sizeof word);
  }
}

struct FixedBlock {
  int16_t weights[64];  // in kWeightUnits
};

inline int32_t multiply_high(int32_t a, int32_t b) { return (a * b + (1 << 14)) >> 15; }

// 64 weights of largest magnitude 1 / inverse_magnitude.
inline FixedBlock to_fixed(const Floats weights[4], float inverse_magnitude) {
  constexpr float kShift = 0x1.8p23f;
  const float factor = inverse_magnitude * kWeightUnits;
  FixedBlock block;
  for (int i = 0; i < 64; i++) {
    block.weights[i] = static_cast<int16_t>((weights[i / 16].lane[i % 16] * factor + kShift) - kShift);
  }
  return block;
}

inline TrialSums try_scale(const FixedBlock& block, int16_t factor) {
  TrialSums sums = {0, 0};
  for (int16_t weight : block.weights) {
    const int32_t number = multiply_high(weight, factor);
    const int32_t level = kTrialLevels.of[(number < -128 ? -128 : number > 127 ? 127 : number) & 255];
    sums.product += multiply_high(weight, kLevelFactor) * level;
    sums.square += level * level;
  }
  return sums;
}

}  // namespace
}  // namespace layerstream::cpu::scalar
