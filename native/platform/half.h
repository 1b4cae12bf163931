// float16 by integer arithmetic, so that every instruction set computes the same bits. Internal linkage: the copies
// that are compiled with different flags never meet in the linker.
#pragma once

#include <cstdint>
#include <cstring>

namespace layerstream {
namespace {

constexpr float kLargestHalf = 65504.0f;

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Infinities and NaN keep their meaning.
inline float float_from_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 1023;
  if (exponent == 31) return float_from_bits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return float_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
  return float_from_bits(sign | float_bits(static_cast<float>(mantissa) * 0x1p-24f));
}

// To nearest, ties to even. |value| <= kLargestHalf.
inline uint16_t half_nearest(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude < 0x38800000) {  // 2^-14: adding 1/2 leaves multiples of 2^-24, the subnormal unit, in the mantissa
    return static_cast<uint16_t>(sign | (float_bits(float_from_bits(magnitude) + 0.5f) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

// The least float16 that is not below `value`. 0 <= value <= kLargestHalf.
inline uint16_t half_above(float value) {
  const uint32_t bits = float_bits(value);
  if (bits >= 0x38800000) return static_cast<uint16_t>((bits + 0x1fff - 0x38000000) >> 13);
  const float units = value * 0x1p24f;
  const uint32_t whole = static_cast<uint32_t>(units);
  return static_cast<uint16_t>(whole + (static_cast<float>(whole) < units));
}

}  // namespace
}  // namespace layerstream
