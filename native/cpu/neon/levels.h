// Weights to kNormalFloat4 and back, in NEON; what each operation means is said in native/cpu/scalar/levels.h.
#pragma once

#include "../normal_float.h"
#include "simd.h"

namespace layerstream::cpu::neon {
namespace {

inline Integers nearest_level(Floats value) {
  Integers codes;
  for (int i = 0; i < 4; i++) {
    codes.v[i] = vdupq_n_s32(0);
    for (float threshold : kNearestThresholds) {
      codes.v[i] = vsubq_s32(codes.v[i], vreinterpretq_s32_u32(vcgtq_f32(value.v[i], vdupq_n_f32(threshold))));
    }
  }
  return codes;
}
// The 16 levels are one table of 64 bytes: byte b of level c is entry 4c + b.
inline Floats level_value(Integers codes) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(kNormalFloat4);
  const uint8x16x4_t table = {{vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)}};
  return each([&](int i) {
    const int32x4_t entries = vmlaq_s32(vdupq_n_s32(0x03020100), codes.v[i], vdupq_n_s32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_s32(entries)));
  });
}
inline void store_nibbles(uint8_t* target, const Integers codes[4]) {
  for (int half = 0; half < 2; half++) {
    int32x4_t words = vdupq_n_s32(0);
    for (int k = 3; k >= 0; k--) {
      words = vorrq_s32(vshlq_n_s32(words, 4), codes[k].v[2 + half]);
      words = vorrq_s32(vshlq_n_s32(words, 4), codes[k].v[half]);
    }
    vst1q_u8(target + 16 * half, vreinterpretq_u8_s32(words));
  }
}

struct FixedBlock {
  int16x8_t weights[8];  // in kWeightUnits
  int8x16_t rounded[4];  // in kLevelUnits
};

inline FixedBlock to_fixed(const Floats weights[4], float inverse_magnitude) {
  const float factor = inverse_magnitude * kWeightUnits;
  FixedBlock block;
  for (int k = 0; k < 8; k++) {
    const float32x4_t* pair = &weights[k / 2].v[2 * (k % 2)];
    block.weights[k] = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(pair[0], factor))),
                                    vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(pair[1], factor))));
  }
  for (int k = 0; k < 4; k++) {
    block.rounded[k] = vcombine_s8(vqmovn_s16(vqrdmulhq_n_s16(block.weights[2 * k], kLevelFactor)),
                                   vqmovn_s16(vqrdmulhq_n_s16(block.weights[2 * k + 1], kLevelFactor)));
  }
  return block;
}

// Lookups past a table of 64 yield 0.
inline int8x16_t trial_levels(int8x16_t numbers) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(kTrialLevels.of);
  uint8x16_t levels = vdupq_n_u8(0);
  for (int quarter = 0; quarter < 4; quarter++) {
    const uint8_t* part = bytes + 64 * quarter;
    const uint8x16x4_t table = {{vld1q_u8(part), vld1q_u8(part + 16), vld1q_u8(part + 32), vld1q_u8(part + 48)}};
    const uint8x16_t index = vsubq_u8(vreinterpretq_u8_s8(numbers), vdupq_n_u8(static_cast<uint8_t>(64 * quarter)));
    levels = vorrq_u8(levels, vqtbl4q_u8(table, index));
  }
  return vreinterpretq_s8_u8(levels);
}

inline TrialSums try_scale(const FixedBlock& block, int16_t factor) {
  int32x4_t products = vdupq_n_s32(0);
  int32x4_t squares = vdupq_n_s32(0);
  for (int k = 0; k < 4; k++) {
    const int8x16_t numbers = vcombine_s8(vqmovn_s16(vqrdmulhq_n_s16(block.weights[2 * k], factor)),
                                          vqmovn_s16(vqrdmulhq_n_s16(block.weights[2 * k + 1], factor)));
    const int8x16_t levels = trial_levels(numbers);
    products = vpadalq_s16(products, vmull_s8(vget_low_s8(levels), vget_low_s8(block.rounded[k])));
    products = vpadalq_s16(products, vmull_high_s8(levels, block.rounded[k]));
    squares = vpadalq_s16(squares, vmull_s8(vget_low_s8(levels), vget_low_s8(levels)));
    squares = vpadalq_s16(squares, vmull_high_s8(levels, levels));
  }
  return {vaddvq_s32(products), vaddvq_s32(squares)};
}

}  // namespace
}  // namespace layerstream::cpu::neon
