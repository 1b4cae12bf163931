// ggml's blocks of 32 columns, as GGUF files hold them (ggml-common.h): q8_0 to q5_1. A unit is a block.
#pragma once

#include "weights.cuh"

namespace layerstream::cuda {

template <>
struct Codec<Format::kQ8_0> {
  static constexpr uint32_t kUnit = 32, kPadding = 32, kScaleQuads = 8, kItemQuads = 8;
  struct Unit {
    uint32_t words[8];
    float scale;
  };

  __device__ static __forceinline__ Unit load(const RowLayout&, const uint8_t* row, uint32_t index) {
    Unit unit;
    const uint8_t* const block = row + size_t{index} * 34;
    load_any(block + 2, unit.words);
    unit.scale = load_half(block);
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t word = unit.words[quad] ^ 0x80808080u;
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) weights[i] = byte_number(word, i, 128.0f);
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<Codec>(tile, i); }
};

// float16 scale, float16 minimum if there is one, fifth bits in a uint32, 16 bytes of nibbles.
template <bool kFive, bool kMinimum>
struct NibbleBlockCodec {
  static constexpr uint32_t kUnit = 32, kPadding = 32, kScaleQuads = 8, kItemQuads = 8;
  static constexpr uint32_t kHeader = kMinimum ? 4 : 2;
  struct Unit {
    uint32_t words[4];
    uint32_t fifth[1];
    float scale, minimum;
  };

  __device__ static __forceinline__ Unit load(const RowLayout&, const uint8_t* row, uint32_t index) {
    Unit unit;
    const uint8_t* const block = row + size_t{index} * (kHeader + (kFive ? 20 : 16));
    load_any(block + kHeader + (kFive ? 4 : 0), unit.words);
    unit.fifth[0] = 0;
    if constexpr (kFive) load_any(block + kHeader, unit.fifth);
    unit.scale = load_half(block);
    unit.minimum = kMinimum ? load_half(block + 2) : 0.0f;
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) { return index * kUnit + 4 * quad; }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    constexpr float kZero = kMinimum ? 0.0f : kFive ? 16.0f : 8.0f;
    const uint32_t word = unit.words[quad % 4];
    if constexpr (kFive) {
      const uint32_t fifth = unit.fifth[0] >> (4 * quad);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        weights[i] = whole_number((word >> (8 * i + quad / 4 * 4) & 15) | (fifth >> i & 1) << 4, kZero);
      }
    } else {
      four_numbers(word, quad / 4 * 4, 4, kZero, weights);
    }
    if constexpr (kMinimum) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = fmaf(weights[i], unit.scale, unit.minimum);
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t) { return kMinimum ? 1.0f : unit.scale; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<NibbleBlockCodec>(tile, i); }
};

template <>
struct Codec<Format::kQ4_0> : NibbleBlockCodec<false, false> {};
template <>
struct Codec<Format::kQ4_1> : NibbleBlockCodec<false, true> {};
template <>
struct Codec<Format::kQ5_0> : NibbleBlockCodec<true, false> {};
template <>
struct Codec<Format::kQ5_1> : NibbleBlockCodec<true, true> {};

}  // namespace layerstream::cuda
