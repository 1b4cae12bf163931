// ggml's blocks of 256 columns (ggml-common.h): q2_k to q6_k. A unit is 16 bytes of a block's codes, and what of the rest
// belongs to them.
#pragma once

#include "weights.cuh"

namespace layerstream::cuda {

// Two bits a code, 64 columns a unit: byte i of half h of run n has columns 128 * n + 32 * k + 16 * h + i.
template <bool kThree>
struct TwoBitCodec {
  static constexpr uint32_t kUnit = 64, kPadding = 256, kScaleQuads = 4, kItemQuads = 8;
  struct Unit {
    uint32_t words[4];
    uint32_t high[kThree ? 4 : 1];  // q3_k: third bits, from the lowest on
    float scales[4], minima[4];
  };

  __device__ static __forceinline__ Unit load(const RowLayout&, const uint8_t* row, uint32_t index) {
    const uint8_t* const block = row + index / 4 * size_t{kThree ? 110 : 84};
    const uint32_t run = index / 2 % 2, half = index % 2;
    Unit unit;
    load_any(block + (kThree ? 32 : 16) + 32 * run + 16 * half, unit.words);
    unit.high[0] = 0;
    if constexpr (kThree) {
      load_any(block + 16 * half, unit.high);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) unit.high[i] >>= 4 * run;
      uint32_t scales[3];
      load_any(block + 96, scales);
      const float all = load_half(block + 108);
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        const uint32_t low = scales[k / 2] >> (8 * (2 * k % 4 + half) + 4 * run) & 15;
        const uint32_t high = scales[2] >> (8 * (2 * k % 4 + half) + 4 * run + k / 2 * 2) & 3;
        unit.scales[k] = all * whole_number(low | high << 4, 32.0f);
        unit.minima[k] = 0.0f;
      }
    } else {
      uint32_t scales[2], all[1];
      load_any(block + 8 * run, scales);
      load_any(block + 80, all);
      const float scale = half_value(all[0] & 0xffff), minimum = half_value(all[0] >> 16);
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k) {
        const uint32_t byte = scales[k / 2] >> 8 * (2 * k % 4 + half);
        unit.scales[k] = scale * whole_number(byte & 15, 0.0f);
        unit.minima[k] = minimum * whole_number(byte >> 4 & 15, 0.0f);
      }
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) {
    return index / 2 * 128 + quad / 4 * 32 + index % 2 * 16 + quad % 4 * 4;
  }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t word = unit.words[quad % 4] >> (quad / 4 * 2), k = quad / 4;
    if constexpr (kThree) {
      const uint32_t high = unit.high[quad % 4] >> k;
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = whole_number((word >> 8 * i & 3) | (high >> 8 * i & 1) << 2, 4.0f);
    } else {
      four_numbers(word, 0, 2, 0.0f, weights);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) weights[i] = fmaf(weights[i], unit.scales[k], -unit.minima[k]);
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t quad) { return kThree ? unit.scales[quad / 4] : 1.0f; }
  // The tile has half of the quads of two units.
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return {tile / 2 * 2 + i, tile % 2 * 8}; }
  __device__ static __forceinline__ void skip(Unit& unit) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      unit.words[i] >>= 4;
      if constexpr (kThree) unit.high[i] >>= 2;
    }
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      unit.scales[i] = unit.scales[2 + i];
      unit.minima[i] = unit.minima[2 + i];
    }
  }
};

template <>
struct Codec<Format::kQ2K> : TwoBitCodec<false> {};
template <>
struct Codec<Format::kQ3K> : TwoBitCodec<true> {};

// Nibbles with a scale and a minimum of six bits for 32 columns: byte i of half h of run q has columns 64 * q + 16 * h + i and,
// in its high nibble, 32 more.
template <bool kFive>
struct NibbleSuperCodec {
  static constexpr uint32_t kUnit = 32, kPadding = 256, kScaleQuads = 4, kItemQuads = 8;
  struct Unit {
    uint32_t words[4];
    uint32_t fifth[kFive ? 4 : 1];  // from the lowest bit on
    float scales[2], minima[2];
  };

  __device__ static __forceinline__ Unit load(const RowLayout&, const uint8_t* row, uint32_t index) {
    const uint8_t* const block = row + index / 8 * size_t{kFive ? 176 : 144};
    const uint32_t run = index / 2 % 4, half = index % 2;
    Unit unit;
    load_sixteen(block + (kFive ? 48 : 16) + 32 * run + 16 * half, unit.words);
    unit.fifth[0] = 0;
    if constexpr (kFive) {
      load_sixteen(block + 16 + 16 * half, unit.fifth);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) unit.fifth[i] >>= 2 * run;
    }
    uint32_t header[4];
    load_sixteen(block, header);
    const float scale = half_value(header[0] & 0xffff), minimum = half_value(header[0] >> 16);
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      unit.scales[i] = scale * six_bits(header[1], header[3], 2 * run + i, 0);
      unit.minima[i] = minimum * six_bits(header[2], header[3], 2 * run + i, 4);
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) {
    return index / 2 * 64 + quad / 4 * 32 + index % 2 * 16 + quad % 4 * 4;
  }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t word = unit.words[quad % 4];
    if constexpr (kFive) {
      const uint32_t fifth = unit.fifth[quad % 4] >> (quad / 4);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        weights[i] = whole_number((word >> (8 * i + quad / 4 * 4) & 15) | (fifth >> 8 * i & 1) << 4, 0.0f);
      }
    } else {
      four_numbers(word, quad / 4 * 4, 4, 0.0f, weights);
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) weights[i] = fmaf(weights[i], unit.scales[quad / 4], -unit.minima[quad / 4]);
  }
  __device__ static __forceinline__ float scale(const Unit&, uint32_t) { return 1.0f; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<NibbleSuperCodec>(tile, i); }

 private:
  // Of group `group`; `own` has the low six bits of the first four and the high two of the others, whose low four are in
  // `common` from bit `first` of a byte on.
  __device__ static __forceinline__ float six_bits(uint32_t own, uint32_t common, uint32_t group, uint32_t first) {
    const uint32_t byte = own >> 8 * (group % 4);
    const uint32_t other = (common >> (8 * (group % 4) + first) & 15) | (byte >> 6 & 3) << 4;
    return whole_number(group < 4 ? byte & 63 : other, 0.0f);
  }
};

template <>
struct Codec<Format::kQ4K> : NibbleSuperCodec<false> {};
template <>
struct Codec<Format::kQ5K> : NibbleSuperCodec<true> {};

// Low nibbles, then the high two bits, int8 scales of 16 columns: byte i of part m of run n has columns 128 * n + 16 * m + i
// and, in its high nibble, 64 more.
template <>
struct Codec<Format::kQ6K> {
  static constexpr uint32_t kUnit = 32, kPadding = 256, kScaleQuads = 4, kItemQuads = 4;
  struct Unit {
    uint32_t words[4], high[4];  // high: from the lowest bit on
    float scales[2];
  };

  __device__ static __forceinline__ Unit load(const RowLayout&, const uint8_t* row, uint32_t index) {
    const uint8_t* const block = row + index / 8 * size_t{210};
    const uint32_t run = index / 4 % 2, part = index % 4;
    Unit unit;
    load_any(block + 64 * run + 16 * part, unit.words);
    load_any(block + 128 + 32 * run + part % 2 * 16, unit.high);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) unit.high[i] >>= part / 2 * 2;
    const float all = load_half(block + 208);
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t byte = __ldg(block + 192 + 8 * run + part + 4 * i);
      unit.scales[i] = all * whole_number(byte ^ 128, 128.0f);
    }
    return unit;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) {
    return index / 4 * 128 + quad / 4 * 64 + index % 4 * 16 + quad % 4 * 4;
  }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t word = unit.words[quad % 4] >> (quad / 4 * 4), high = unit.high[quad % 4] >> (quad / 4 * 4);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      weights[i] = whole_number((word >> 8 * i & 15) | (high >> 8 * i & 3) << 4, 32.0f);
    }
  }
  __device__ static __forceinline__ float scale(const Unit& unit, uint32_t quad) { return unit.scales[quad / 4]; }
  // The tile has half of the quads of four units.
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return {tile / 2 * 4 + i, tile % 2 * 4}; }
  __device__ static __forceinline__ void skip(Unit& unit) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      unit.words[i] >>= 4;
      unit.high[i] >>= 4;
    }
    unit.scales[0] = unit.scales[1];
  }
};

}  // namespace layerstream::cuda
