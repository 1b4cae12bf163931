// Sixteen float lanes in portable C++. Every instruction set has the same names (see native/cpu/generic).
#pragma once

#include <cstdint>
#include <cstring>

#include "../../platform/half.h"

#define LAYERSTREAM_ISA scalar

namespace layerstream::cpu::scalar {
namespace {

struct Floats {
  float lane[16];
};
struct Integers {
  int32_t lane[16];
};

// Rows and vectors of the register tiles of attention.
constexpr int kTileRows = 2;
constexpr int kTileVectors = 1;

template <typename Function>
inline Floats each(Function function) {
  Floats result;
  for (int i = 0; i < 16; i++) result.lane[i] = function(i);
  return result;
}

inline Floats broadcast(float value) {
  return each([&](int) { return value; });
}
inline Floats load(const float* source) {
  Floats result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
inline Floats load(const float* source, uint32_t count) {
  Floats result = {};
  std::memcpy(&result, source, count * sizeof(float));
  return result;
}
inline void store(float* target, Floats value) { std::memcpy(target, &value, sizeof value); }
inline void store(float* target, Floats value, uint32_t count) {
  std::memcpy(target, &value, count * sizeof(float));
}

// Asks for an address to be brought to the second-level cache, which keeps more requests in flight than the first.
inline void prefetch(const float* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#else
  (void)address;
#endif
}

inline Floats load_f32(const uint8_t* source) {
  Floats result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
inline Floats load_f16(const uint8_t* source) {
  uint16_t halves[16];
  std::memcpy(halves, source, sizeof halves);
  return each([&](int i) { return float_from_half(halves[i]); });
}
inline Floats load_bf16(const uint8_t* source) {
  uint16_t halves[16];
  std::memcpy(halves, source, sizeof halves);
  return each([&](int i) { return float_from_bits(uint32_t{halves[i]} << 16); });
}

// 16 int8 as floats.
inline Floats load_int8(const uint8_t* source) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(source[i])); });
}

inline Floats operator+(Floats a, Floats b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Floats operator-(Floats a, Floats b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Floats operator*(Floats a, Floats b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Floats operator/(Floats a, Floats b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
// a * b + c, fused where the processor has it.
inline Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
// b where either is NaN.
inline Floats maximum(Floats a, Floats b) {
  return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? if_less.lane[i] : otherwise.lane[i]; });
}

// Adds lanes 8 apart, then 4, 2 and 1, on every instruction set.
inline float sum(Floats value) {
  for (int distance = 8; distance > 0; distance /= 2) {
    for (int i = 0; i < distance; i++) value.lane[i] = value.lane[i] + value.lane[i + distance];
  }
  return value.lane[0];
}
inline float largest(Floats value) {
  float result = value.lane[0];
  for (int i = 1; i < 16; i++) result = result > value.lane[i] ? result : value.lane[i];
  return result;
}

// value * 2^n, where `shifted` is n + 1.5 * 2^23; the result is a normal number.
inline Floats scale_by_power(Floats value, Floats shifted) {
  return each([&](int i) { return float_from_bits(float_bits(value.lane[i]) + (float_bits(shifted.lane[i]) << 23)); });
}

inline Integers absolute_bits(Floats value) {
  Integers result;
  for (int i = 0; i < 16; i++) result.lane[i] = static_cast<int32_t>(float_bits(value.lane[i]) & 0x7fffffff);
  return result;
}
inline Integers maximum(Integers a, Integers b) {
  for (int i = 0; i < 16; i++) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return a;
}
inline int32_t largest(Integers value) {
  int32_t result = value.lane[0];
  for (int i = 1; i < 16; i++) result = result > value.lane[i] ? result : value.lane[i];
  return result;
}

// To nearest, ties to even; every |value| < 128.
inline void store_int8(int8_t* target, Floats value) {
  constexpr float kShift = 0x1.8p23f;
  for (int i = 0; i < 16; i++) target[i] = static_cast<int8_t>((value.lane[i] + kShift) - kShift);
}

// Lane i of vector k becomes lane k of vector i.
inline void transpose(Floats vectors[16]) {
  for (int i = 0; i < 16; i++) {
    for (int k = 0; k < i; k++) {
      const float value = vectors[i].lane[k];
      vectors[i].lane[k] = vectors[k].lane[i];
      vectors[k].lane[i] = value;
    }
  }
}

}  // namespace
}  // namespace layerstream::cpu::scalar
