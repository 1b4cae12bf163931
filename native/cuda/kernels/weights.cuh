// How kernels read rows of weights (backend/format.h). A Codec divides a row into units that a thread decodes by itself:
//
//   kUnit                    columns of a unit, in quads of four neighbouring columns
//   kPadding                 units exist up to a multiple of so many columns
//   kScaleQuads              quads that share a scale
//   Unit                     what a thread holds of a unit
//   load(layout, row, unit)  begins the loads
//   column(unit, quad)       the first column of a quad
//   decode(unit, quad, w)    its weights, before the scale; 0 where there is no column
//   scale(unit, quad)
//   kItemQuads, item(tile, i) how 64 columns are divided into 16 / kItemQuads items, each quads of one unit
//   skip(unit)               where items are halves of units: makes the second half the first
//   decode_pairs, quad_at    where codes are indexes: decode by a table of pairs, and the order of quads that suits it
//
// Loads are 16 bytes where rows begin on a multiple of 16, else the words of four bytes that hold a part of the unit: memory
// is readable in such words.
#pragma once

#include "arguments.h"
#include "functions.cuh"

namespace layerstream::cuda {

__device__ __forceinline__ uint32_t load_word(const uint8_t* source) { return __ldg(reinterpret_cast<const uint32_t*>(source)); }

__device__ __forceinline__ uint32_t load_short(const uint8_t* source) {
  return __ldg(source) | static_cast<uint32_t>(__ldg(source + 1)) << 8;
}
// Of a multiple of 2.
__device__ __forceinline__ float load_half(const uint8_t* source) {
  return half_value(__ldg(reinterpret_cast<const uint16_t*>(source)));
}
__device__ __forceinline__ uint32_t alignment_of(const uint8_t* source) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(source));
}

// Words from any address on.
template <uint32_t kWords>
__device__ __forceinline__ void load_any(const uint8_t* source, uint32_t (&words)[kWords]) {
  const uint32_t bytes = alignment_of(source) % 4;
  const uint8_t* const aligned = source - bytes;
#pragma unroll
  for (uint32_t i = 0; i < kWords; ++i) words[i] = load_word(aligned + 4 * i);
  if (bytes == 0) return;
  const uint32_t last = load_word(aligned + 4 * kWords);
#pragma unroll
  for (uint32_t i = 0; i + 1 < kWords; ++i) words[i] = __funnelshift_r(words[i], words[i + 1], 8 * bytes);
  words[kWords - 1] = __funnelshift_r(words[kWords - 1], last, 8 * bytes);
}

__device__ __forceinline__ void load_vector(const uint8_t* source, uint32_t (&words)[4]) {
  const uint4 vector = __ldg(reinterpret_cast<const uint4*>(source));
  words[0] = vector.x;
  words[1] = vector.y;
  words[2] = vector.z;
  words[3] = vector.w;
}

// 16 bytes whose distance from the row's first is a multiple of 16: all threads take the same way.
__device__ __forceinline__ void load_sixteen(const uint8_t* source, uint32_t (&words)[4]) {
  if (alignment_of(source) % 16 == 0) {
    load_vector(source, words);
  } else {
    load_any(source, words);
  }
}

// The same at the end of a row of `bytes` more bytes; zeros behind it.
__device__ __forceinline__ void load_at_end(const uint8_t* source, uint32_t bytes, uint32_t (&words)[4]) {
  if (bytes >= 16) return load_sixteen(source, words);
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    words[i] = 0;
    for (uint32_t b = 4 * i; b < min(bytes, 4 * i + 4); ++b) words[i] |= static_cast<uint32_t>(__ldg(source + b)) << (b % 4 * 8);
  }
}

__device__ __forceinline__ uint32_t group_of(const RowLayout& layout, uint32_t column) {
  const uint32_t group = layout.block_shift >= 0 ? column >> layout.block_shift : column / layout.block;
  return min(group, layout.groups - 1);
}

// Bits [first, first + count) of a word as a number, less `zero`: put into the mantissa of a power of two, which takes one
// operation more to remove. first + count <= 20.
__device__ __forceinline__ float number_of(uint32_t word, uint32_t first, uint32_t count, float zero) {
  const uint32_t bits = (word & (((1u << count) - 1) << first)) | (0x4b000000u - (first << 23));
  return __uint_as_float(bits) - (static_cast<float>(1u << (23 - first)) + zero);
}

// A byte of a word as a number, less `zero`.
__device__ __forceinline__ float byte_number(uint32_t word, uint32_t byte, float zero) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u | byte)) - (8388608.0f + zero);
}

// A number of up to 16 bits, less `zero`.
__device__ __forceinline__ float whole_number(uint32_t number, float zero) {
  return __uint_as_float(number | 0x4b000000u) - (8388608.0f + zero);
}

__device__ __forceinline__ uint32_t byte_of(uint32_t word, uint32_t byte) { return word >> 8 * byte & 255; }

// Bytes of which four follow from bit `first` on: `count` bits of each, as numbers.
__device__ __forceinline__ void four_numbers(uint32_t word, uint32_t first, uint32_t count, float zero, float (&weights)[4]) {
  const uint32_t upper = word >> 16;
  weights[0] = number_of(word, first, count, zero);
  weights[1] = number_of(word, 8 + first, count, zero);
  weights[2] = number_of(upper, first, count, zero);
  weights[3] = number_of(upper, 8 + first, count, zero);
}

// Tables of sixteen levels, one for each lane, so that lanes never wait for one another: level c of lane l is at
// 32 * c + l.
constexpr uint32_t kLevelFloats = 16 * kWarpThreads;
__device__ __forceinline__ float* level_table() {
  __shared__ float levels[kLevelFloats];
  return levels;
}

static __constant__ float kLevels[2][16] = {
    {kFloat4[0], kFloat4[1], kFloat4[2], kFloat4[3],
     kFloat4[4], kFloat4[5], kFloat4[6], kFloat4[7],
     kFloat4[8], kFloat4[9], kFloat4[10], kFloat4[11],
     kFloat4[12], kFloat4[13], kFloat4[14], kFloat4[15]},
    {kNormalFloat4[0], kNormalFloat4[1], kNormalFloat4[2], kNormalFloat4[3],
     kNormalFloat4[4], kNormalFloat4[5], kNormalFloat4[6], kNormalFloat4[7],
     kNormalFloat4[8], kNormalFloat4[9], kNormalFloat4[10], kNormalFloat4[11],
     kNormalFloat4[12], kNormalFloat4[13], kNormalFloat4[14], kNormalFloat4[15]}};

// All threads of the block, before a barrier.
__device__ __forceinline__ void fill_levels(bool normal_floats) {
  float* const levels = level_table();
  for (uint32_t i = threadIdx.x; i < kLevelFloats; i += blockDim.x) levels[i] = kLevels[normal_floats ? 1 : 0][i / kWarpThreads];
}

// The level of the code in bits [first, first + 4).
__device__ __forceinline__ float level_of(uint32_t word, uint32_t first) {
  const uint32_t shifted = first < 7 ? word << (7 - first) : word >> (first - 7);
  const uint32_t offset = (shifted & 0x780u) | threadIdx.x % kWarpThreads * sizeof(float);
  return *reinterpret_cast<const float*>(reinterpret_cast<const uint8_t*>(level_table()) + offset);
}

// The same for vector products, whose rate it decides: two levels at once. Those of the codes in byte b are at 16 * b + l for
// lanes l and 16 + l, which read in different cycles.
constexpr uint32_t kPairSlots = 16;
static_assert(kPairTableBytes == 256 * kPairSlots * sizeof(float2));
__device__ __forceinline__ void fill_pairs(bool normal_floats, float2* pairs) {
  const float* const levels = kLevels[normal_floats ? 1 : 0];
  for (uint32_t i = threadIdx.x; i < 256 * kPairSlots; i += blockDim.x) {
    const uint32_t byte = i / kPairSlots;
    pairs[i] = make_float2(levels[byte & 15], levels[byte >> 4]);
  }
}
__device__ __forceinline__ float2 pair_of(const float2* pairs, uint32_t word, uint32_t byte) {
  const uint32_t shifted = byte == 0 ? word << 7 : word >> (8 * byte - 7);
  const uint32_t offset = (shifted & 0x7f80u) | threadIdx.x % kPairSlots * sizeof(float2);
  return *reinterpret_cast<const float2*>(reinterpret_cast<const uint8_t*>(pairs) + offset);
}

struct Item {
  uint32_t unit, first_quad;
};

// Where a tile of 64 columns is whole units.
template <class Codec>
__device__ __forceinline__ Item whole_item(uint32_t tile, uint32_t i) {
  const uint32_t quad = i * Codec::kItemQuads;
  return {tile * (64 / Codec::kUnit) + quad * 4 / Codec::kUnit, quad % (Codec::kUnit / 4)};
}

template <Format>
struct Codec;

template <class Codec>
__device__ __forceinline__ uint32_t units_of(uint32_t columns) {
  return (columns + Codec::kPadding - 1) / Codec::kPadding * (Codec::kPadding / Codec::kUnit);
}

}  // namespace layerstream::cuda
