// Weights that are numbers by themselves, and float8 with scales.
#pragma once

#include "weights.cuh"

namespace layerstream::cuda {

template <Format kFormat>
struct PlainCodec {
  static constexpr uint32_t kBytes = kFormat == Format::kF32 ? 4 : kFormat == Format::kFp8 ? 1 : 2;
  static constexpr uint32_t kUnit = 16 / kBytes, kPadding = kUnit, kScaleQuads = kUnit / 4, kItemQuads = kUnit / 4;
  struct Unit {
    uint32_t words[4];
    float scale;
  };

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit;
    load_at_end(row + size_t{index} * 16, layout.columns * kBytes - index * 16, unit.words);
    unit.scale = 1.0f;
    if constexpr (kFormat == Format::kFp8) {
      // Behind codes of any number: not aligned.
      uint32_t scale[1];
      load_any(row + layout.columns + 4 * size_t{group_of(layout, index * kUnit)}, scale);
      unit.scale = __uint_as_float(scale[0]);
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    if constexpr (kFormat == Format::kF32) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = __uint_as_float(unit.words[i]);
    } else if constexpr (kFormat == Format::kFp8) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = float8_value(unit.words[quad], i);
    } else {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t word = unit.words[2 * quad + i / 2];
        if constexpr (kFormat == Format::kBF16) {
          weights[i] = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
        } else {
          weights[i] = half_value(i % 2 == 0 ? word & 0xffff : word >> 16);
        }
      }
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<PlainCodec>(tile, i); }

 private:
  // E4M3's bits in the place of float32's are the value times 2^-120, subnormal ones too.
  __device__ static __forceinline__ float float8_value(uint32_t word, uint32_t byte) {
    const uint32_t code = byte_of(word, byte);
    const float value = __uint_as_float((code & 127) << 20) * 0x1p120f;
    const uint32_t bits = (code & 127) == 127 ? 0x7fc00000u : __float_as_uint(value);
    return __uint_as_float(bits | (code & 128) << 24);
  }
};

template <>
struct Codec<Format::kF32> : PlainCodec<Format::kF32> {};
template <>
struct Codec<Format::kF16> : PlainCodec<Format::kF16> {};
template <>
struct Codec<Format::kBF16> : PlainCodec<Format::kBF16> {};
template <>
struct Codec<Format::kFp8> : PlainCodec<Format::kFp8> {};

}  // namespace layerstream::cuda
