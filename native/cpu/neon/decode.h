// How rows are multiplied and weights decoded, in NEON; what each operation means is said in native/cpu/generic.
#pragma once

#include "../../backend/format.h"
#include "../matmul_blocking.h"
#include "simd.h"

namespace layerstream::cpu::neon {
namespace {

constexpr uint32_t kVectorRows = 2;
constexpr uint32_t kQuantizedRows = 2;
constexpr uint32_t kPanelRows = 2;
constexpr uint32_t kTileTokens = 3;
constexpr uint32_t kSumRows = 1;

#if defined(_MSC_VER)
inline void prefetch(const uint8_t* address) { __prefetch(address); }
#else
inline void prefetch(const uint8_t* address) { __builtin_prefetch(address); }
#endif

inline void keep_in_register(Floats&) {}

inline void add_sums(const Floats* values, float* sums) { *sums += sum(*values); }

// Entries of a table of 16 floats, by the low four bits of lanes: byte b of entry c is byte 4c + b of the table.
inline float32x4_t entries_of(uint8x16x4_t table, uint32x4_t lanes) {
  const uint32x4_t code = vandq_u32(lanes, vdupq_n_u32(15));
  const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), code, 0x04040404);
  return vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(bytes)));
}

inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  uint8x16x4_t table;
  for (int i = 0; i < 4; ++i) table.val[i] = vreinterpretq_u8_f32(vmulq_n_f32(vld1q_f32(kNormalFloat4 + 4 * i), scale));
  const auto look_up = [&table](uint32x4_t words, uint32_t nibble) {
    return entries_of(table, vshlq_u32(words, vdupq_n_s32(-4 * static_cast<int32_t>(nibble))));
  };
  const uint32x4_t first = vreinterpretq_u32_u8(vld1q_u8(codes));
  const uint32x4_t second = vreinterpretq_u32_u8(vld1q_u8(codes + 16));
  return {{look_up(first, 2 * v), look_up(second, 2 * v), look_up(first, 2 * v + 1), look_up(second, 2 * v + 1)}};
}

// What generic/step_codec.h asks for.

constexpr bool kFastLookUp = false;
constexpr bool kInlineDecoding = true;

template <typename Function>
inline Integers each_integer(Function function) {
  Integers result;
  for (int i = 0; i < 4; i++) result.v[i] = function(i);
  return result;
}

inline Integers widen_bytes(uint8x16_t bytes) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}
inline Integers load_bytes(const uint8_t* source) { return widen_bytes(vld1q_u8(source)); }
inline Integers from_bytes(uint64_t low, uint64_t high) {
  return widen_bytes(vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high))));
}
template <int kRight>
inline Integers shift(Integers value) {
  return each_integer([&](int i) {
    const uint32x4_t lanes = vreinterpretq_u32_s32(value.v[i]);
    return vreinterpretq_s32_u32(vshlq_u32(lanes, vdupq_n_s32(-kRight)));
  });
}
inline Integers operator&(Integers value, int32_t mask) {
  return each_integer([&](int i) { return vandq_s32(value.v[i], vdupq_n_s32(mask)); });
}
inline Integers operator|(Integers a, Integers b) {
  return each_integer([&](int i) { return vorrq_s32(a.v[i], b.v[i]); });
}
inline Integers or_where(Integers value, uint32_t lanes, int32_t bits) {
  constexpr int32_t kFirst[4] = {1, 2, 4, 8};
  const int32x4_t all = vdupq_n_s32(static_cast<int32_t>(lanes)), first = vld1q_s32(kFirst);
  return each_integer([&](int i) {
    const int32x4_t selected = vreinterpretq_s32_u32(vtstq_s32(all, vshlq_s32(first, vdupq_n_s32(4 * i))));
    return vorrq_s32(value.v[i], vandq_s32(selected, vdupq_n_s32(bits)));
  });
}
inline Floats to_floats(Integers value) {
  return each([&](int i) { return vcvtq_f32_s32(value.v[i]); });
}
inline Floats bits_to_floats(Integers value) {
  return each([&](int i) { return vreinterpretq_f32_s32(value.v[i]); });
}
inline Floats look_up(Floats table, Integers index) {
  uint8x16x4_t bytes;
  for (int i = 0; i < 4; i++) bytes.val[i] = vreinterpretq_u8_f32(table.v[i]);
  return each([&](int i) { return entries_of(bytes, vreinterpretq_u32_s32(index.v[i])); });
}
inline Floats broadcast_half(const uint8_t* source) {
  uint16_t half;
  std::memcpy(&half, source, sizeof half);
  const float32x4_t value = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half)));
  return each([&](int) { return value; });
}

struct Bytes {
  uint8x16_t v[4];
};

inline Bytes load_64(const uint8_t* source) {
  return {{vld1q_u8(source), vld1q_u8(source + 16), vld1q_u8(source + 32), vld1q_u8(source + 48)}};
}
inline Bytes load_twice(const uint8_t* source) {
  const uint8x16_t first = vld1q_u8(source), second = vld1q_u8(source + 16);
  return {{first, second, first, second}};
}
template <int kFirst, int kSecond>
inline Bytes shift_bytes(Bytes value) {
  for (int i = 0; i < 4; i++) value.v[i] = vshlq_u8(value.v[i], vdupq_n_s8(i < 2 ? -kFirst : -kSecond));
  return value;
}
inline Bytes merge(Bytes a, uint8_t mask_a, Bytes b, uint8_t mask_b) {
  for (int i = 0; i < 4; i++) {
    a.v[i] = vorrq_u8(vandq_u8(a.v[i], vdupq_n_u8(mask_a)), vandq_u8(b.v[i], vdupq_n_u8(mask_b)));
  }
  return a;
}
template <uint32_t v>
inline Floats to_floats(Bytes value) {
  return to_floats(widen_bytes(value.v[v]));
}

// A code's bits are those of a float16 whose exponent is 8 too small, once they are moved and the copies of the sign
// taken out. NaN has to be made.
inline void decode_float8(const uint8_t* codes, Floats* weights) {
  const uint16x8_t largest = vdupq_n_u16(0x3f80);
  for (int v = 0; v < 4; v++) {
    for (int half = 0; half < 2; half++) {
      const int8x8_t bytes = vreinterpret_s8_u8(vld1_u8(codes + 16 * v + 8 * half));
      const uint16x8_t words = vreinterpretq_u16_s16(vshll_n_s8(bytes, 7));
      const uint16x8_t is_nan = vceqq_u16(vandq_u16(words, largest), largest);
      const uint16x8_t halves = vorrq_u16(vandq_u16(words, vdupq_n_u16(0xbf80)), vshrq_n_u16(is_nan, 1));
      const float16x8_t values = vreinterpretq_f16_u16(halves);
      weights[v].v[2 * half] = vmulq_n_f32(vcvt_f32_f16(vget_low_f16(values)), 256.0f);
      weights[v].v[2 * half + 1] = vmulq_n_f32(vcvt_high_f32_f16(values), 256.0f);
    }
  }
}

}  // namespace
}  // namespace layerstream::cpu::neon
