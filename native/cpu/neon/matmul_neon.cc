#if defined(__aarch64__) || defined(_M_ARM64)

#include "simd.h"

#include "../../backend/format.h"

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

inline Floats load_int8(const uint8_t* source) {
  const int8x16_t codes = vreinterpretq_s8_u8(vld1q_u8(source));
  const int16x8_t low = vmovl_s8(vget_low_s8(codes)), high = vmovl_high_s8(codes);
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}

// The 16 scaled levels are one table of 64 bytes: byte b of level c is entry 4c + b.
inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  uint8x16x4_t table;
  for (int i = 0; i < 4; ++i) table.val[i] = vreinterpretq_u8_f32(vmulq_n_f32(vld1q_f32(kNormalFloat4 + 4 * i), scale));
  const auto look_up = [&table](uint32x4_t words, uint32_t nibble) {
    const int32x4_t shift = vdupq_n_s32(-4 * static_cast<int32_t>(nibble));
    const uint32x4_t code = vandq_u32(vshlq_u32(words, shift), vdupq_n_u32(15));
    const uint32x4_t entries = vmlaq_n_u32(vdupq_n_u32(0x03020100), code, 0x04040404);
    return vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(entries)));
  };
  const uint32x4_t first = vreinterpretq_u32_u8(vld1q_u8(codes));
  const uint32x4_t second = vreinterpretq_u32_u8(vld1q_u8(codes + 16));
  return {{look_up(first, 2 * v), look_up(second, 2 * v), look_up(first, 2 * v + 1), look_up(second, 2 * v + 1)}};
}

}  // namespace
}  // namespace layerstream::cpu::neon

#include "../generic/matmul.h"

#endif
