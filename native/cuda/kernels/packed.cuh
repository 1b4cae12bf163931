// Codes first, scales behind them: 8bit, 4bit, uint2 to uint8, mxfp4 and nf4.
#pragma once

#include "weights.cuh"

namespace layerstream::cuda {

template <>
struct Codec<Format::kQ8> {
  static constexpr uint32_t kUnit = 16, kPadding = 16, kScaleQuads = 4, kItemQuads = 4;
  struct Unit {
    uint32_t words[4];
    float scale;
  };

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit;
    load_sixteen(row + size_t{index} * 16, unit.words);
    unit.scale = load_half(row + layout.code_bytes + 2 * size_t{index * kUnit >> layout.block_shift}) * (1.0f / 127.0f);
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    // Two's complement to codes of 128 more.
    const uint32_t word = unit.words[quad] ^ 0x80808080u;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) weights[i] = byte_number(word, i, 128.0f);
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<Codec>(tile, i); }
};

// A unit is four of the eight lanes of a step: nibble j of each is a quad.
template <>
struct Codec<Format::kQ4> {
  static constexpr uint32_t kUnit = 32, kPadding = 64, kScaleQuads = 8, kItemQuads = 8;
  struct Unit {
    uint32_t words[4];
    float scale;
  };

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit;
    load_sixteen(row + size_t{index} * 16, unit.words);
    unit.scale = load_half(row + layout.code_bytes + index / 2 * size_t{2});
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) {
    return index / 2 * 64 + 8 * quad + index % 2 * 4;
  }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) weights[i] = level_of(unit.words[i], 4 * quad);
  }
  __device__ static __forceinline__ uint32_t quad_at(uint32_t index) { return index; }
  __device__ static __forceinline__ void decode_pairs(const Unit& unit, uint32_t quad, const float2* pairs, float (&weights)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const float2 pair = pair_of(pairs, unit.words[i], quad / 2);
      weights[i] = quad % 2 == 0 ? pair.x : pair.y;
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<Codec>(tile, i); }
};

// A uint8 is 16 columns, uint4 32, uint2 and uint3 64: sixteen columns that are neighbours have one scale.
template <uint32_t kBits>
struct IntegerCodec {
  static constexpr uint32_t kUnit = kBits == 8 ? 16 : kBits == 4 ? 32 : 64, kPadding = 64;
  static constexpr uint32_t kScaleQuads = 4, kScales = kUnit / 16, kItemQuads = kBits == 8 ? 4 : 8;
  static constexpr uint32_t kStride = kBits == 3 ? 24 : 16;
  struct Unit {
    uint32_t words[4];
    uint32_t high[kBits == 3 ? 2 : 1];
    float scales[kScales], zeros[kScales];
  };

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit;
    const uint8_t* const source = row + size_t{index} * kStride;
    if constexpr (kBits == 3) {
      load_any(source, unit.words);
      load_any(source + 16, unit.high);
    } else {
      load_sixteen(source, unit.words);
    }
    const bool one_scale = layout.block % kUnit == 0 || layout.groups == 1;
#pragma unroll
    for (uint32_t i = 0; i < kScales; ++i) {
      if (i > 0 && one_scale) {
        unit.scales[i] = unit.scales[0];
        unit.zeros[i] = unit.zeros[0];
        continue;
      }
      const size_t group = group_of(layout, index * kUnit + 16 * i);
      // Rows of an odd number of bytes are possible: three a group.
      unit.scales[i] = half_value(load_short(row + layout.code_bytes + 2 * group));
      unit.zeros[i] = whole_number(__ldg(row + layout.code_bytes + 2 * size_t{layout.groups} + group), 0.0f);
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t word = unit.words[quad % 4];
    const float zero = unit.zeros[quad / 4 % kScales];
    if constexpr (kBits == 8) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = byte_number(word, i, zero);
    } else if constexpr (kBits == 3) {
      const uint32_t high = unit.high[quad / 8] >> (quad % 8 * 4);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        weights[i] = whole_number((word >> (8 * i + quad / 4 * 2) & 3) | (high >> i & 1) << 2, zero);
      }
    } else {
      four_numbers(word, quad / 4 * kBits, kBits, zero, weights);
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t quad) { return unit.scales[quad / 4]; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<IntegerCodec>(tile, i); }
  __device__ static __forceinline__ void skip(Unit& unit) {
    if constexpr (kUnit == 64) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) unit.words[i] >>= 4;
      if constexpr (kBits == 3) unit.high[0] = unit.high[1];
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        unit.scales[i] = unit.scales[2 + i];
        unit.zeros[i] = unit.zeros[2 + i];
      }
    }
  }
};

template <>
struct Codec<Format::kU2> : IntegerCodec<2> {};
template <>
struct Codec<Format::kU3> : IntegerCodec<3> {};
template <>
struct Codec<Format::kU4> : IntegerCodec<4> {};
template <>
struct Codec<Format::kU8> : IntegerCodec<8> {};

// 2^(byte - 127); the least is no normal number.
__device__ __forceinline__ float power_of_two(uint32_t byte) {
  return __uint_as_float(byte == 255 ? 0x7fc00000u : byte == 0 ? 0x00400000u : byte << 23);
}

// Levels in uint4's order.
template <bool kNormalFloats>
struct LevelCodec {
  static constexpr uint32_t kUnit = 32, kPadding = 64, kScaleQuads = 8, kItemQuads = 8;
  struct Unit {
    uint32_t words[4];
    float scale;
  };

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit;
    load_sixteen(row + size_t{index} * 16, unit.words);
    const uint8_t* const scales = row + layout.code_bytes;
    if constexpr (kNormalFloats) {
      unit.scale = __uint_as_float(load_word(scales + index / 2 * size_t{4}));
    } else {
      unit.scale = power_of_two(__ldg(scales + min(index, layout.groups - 1)));
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) weights[i] = level_of(unit.words[quad % 4], 8 * i + quad / 4 * 4);
  }
  // A byte has weights of two quads.
  __device__ static __forceinline__ uint32_t quad_at(uint32_t index) { return index % 2 * 4 + index / 2; }
  __device__ static __forceinline__ void decode_pairs(const Unit& unit, uint32_t quad, const float2* pairs, float (&weights)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const float2 pair = pair_of(pairs, unit.words[quad % 4], i);
      weights[i] = quad < 4 ? pair.x : pair.y;
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<LevelCodec>(tile, i); }
};

template <>
struct Codec<Format::kMxfp4> : LevelCodec<false> {};
template <>
struct Codec<Format::kNf4> : LevelCodec<true> {};

}  // namespace layerstream::cuda
