// Sixteen float lanes as four NEON registers; what each operation means is said in native/cpu/scalar/simd.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#define LAYERSTREAM_ISA neon

namespace layerstream::cpu::neon {
namespace {

struct Floats {
  float32x4_t v[4];
};
struct Integers {
  int32x4_t v[4];
};

constexpr int kTileRows = 4;
constexpr int kTileVectors = 1;

template <typename Function>
inline Floats each(Function function) {
  Floats result;
  for (int i = 0; i < 4; i++) result.v[i] = function(i);
  return result;
}

inline Floats broadcast(float value) {
  return each([&](int) { return vdupq_n_f32(value); });
}
inline Floats load(const float* source) {
  return each([&](int i) { return vld1q_f32(source + 4 * i); });
}
inline Floats load(const float* source, uint32_t count) {
  float padded[16] = {};
  std::memcpy(padded, source, count * sizeof(float));
  return load(padded);
}
inline void store(float* target, Floats value) {
  for (int i = 0; i < 4; i++) vst1q_f32(target + 4 * i, value.v[i]);
}
inline void store(float* target, Floats value, uint32_t count) {
  float padded[16];
  store(padded, value);
  std::memcpy(target, padded, count * sizeof(float));
}

inline void prefetch(const float* address) { __builtin_prefetch(address, 0, 2); }

inline Floats load_f32(const uint8_t* source) {
  return each([&](int i) { return vreinterpretq_f32_u8(vld1q_u8(source + 16 * i)); });
}
inline Floats load_f16(const uint8_t* source) {
  return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(source + 8 * i))); });
}
inline Floats load_bf16(const uint8_t* source) {
  return each([&](int i) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(source + 8 * i)), 16));
  });
}

inline Floats load_int8(const uint8_t* source) {
  const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(source));
  const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_high_s8(codes);
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}

inline Floats operator+(Floats a, Floats b) {
  return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Floats operator-(Floats a, Floats b) {
  return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline Floats operator*(Floats a, Floats b) {
  return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Floats operator/(Floats a, Floats b) {
  return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline Floats maximum(Floats a, Floats b) {
  return each([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline Floats select_less(Floats a, Floats b, Floats if_less, Floats otherwise) {
  return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), if_less.v[i], otherwise.v[i]); });
}

inline float sum(Floats value) {
  const float32x4_t four = vaddq_f32(vaddq_f32(value.v[0], value.v[2]), vaddq_f32(value.v[1], value.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float largest(Floats value) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(value.v[0], value.v[1]), vmaxq_f32(value.v[2], value.v[3])));
}

inline Floats scale_by_power(Floats value, Floats shifted) {
  return each([&](int i) {
    const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted.v[i]), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(value.v[i]), exponent));
  });
}

inline Integers absolute_bits(Floats value) {
  Integers result;
  for (int i = 0; i < 4; i++) result.v[i] = vandq_s32(vreinterpretq_s32_f32(value.v[i]), vdupq_n_s32(0x7fffffff));
  return result;
}
inline Integers maximum(Integers a, Integers b) {
  for (int i = 0; i < 4; i++) a.v[i] = vmaxq_s32(a.v[i], b.v[i]);
  return a;
}
inline int32_t largest(Integers value) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(value.v[0], value.v[1]), vmaxq_s32(value.v[2], value.v[3])));
}

inline void store_int8(int8_t* target, Floats value) {
  int16x4_t words[4];
  for (int i = 0; i < 4; i++) words[i] = vqmovn_s32(vcvtnq_s32_f32(value.v[i]));
  vst1_s8(target, vqmovn_s16(vcombine_s16(words[0], words[1])));
  vst1_s8(target + 8, vqmovn_s16(vcombine_s16(words[2], words[3])));
}

inline void transpose(Floats vectors[16]) {
  Floats result[16];
  for (int row = 0; row < 4; row++) {
    for (int column = 0; column < 4; column++) {
      const float32x4x2_t first = vtrnq_f32(vectors[4 * row].v[column], vectors[4 * row + 1].v[column]);
      const float32x4x2_t second = vtrnq_f32(vectors[4 * row + 2].v[column], vectors[4 * row + 3].v[column]);
      for (int odd = 0; odd < 2; odd++) {
        const float32x4_t a = first.val[odd], b = second.val[odd];
        result[4 * column + odd].v[row] = vcombine_f32(vget_low_f32(a), vget_low_f32(b));
        result[4 * column + 2 + odd].v[row] = vcombine_f32(vget_high_f32(a), vget_high_f32(b));
      }
    }
  }
  for (int i = 0; i < 16; i++) vectors[i] = result[i];
}

}  // namespace
}  // namespace layerstream::cpu::neon
