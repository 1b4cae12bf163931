// What the kernels in native/cuda/kernels use of CUDA C++, for a C++ compiler: included before a .cu file.
//
//   c++ -std=c++20 -x c++ -include test/native/cuda_host/cuda_host.h -c native/cuda/kernels/elementwise.cu
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../../native/platform/half.h"
#include "block.h"

#define LAYERSTREAM_CUDA_HOST 1

#define __device__
#define __constant__ const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))

// A kernel, which can be found by its name.
#define KERNEL(kernel_name, Arguments, threads, blocks)                                                               \
  static void kernel_name(const Arguments arguments);                                                                \
  static const layerstream::cuda_host::Registration registration_of_##kernel_name{                                    \
      {#kernel_name, [](const void* arguments) { kernel_name(*static_cast<const Arguments*>(arguments)); },            \
       sizeof(Arguments), threads}};                                                                                  \
  static void kernel_name([[maybe_unused]] const Arguments arguments)

struct dim3 {
  uint32_t x, y, z;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace layerstream::cuda_host {
inline dim3 thread_index() { return {current_block().thread(), 0, 0}; }
inline dim3 block_index() {
  const Block& block = current_block();
  return {block.block_index[0], block.block_index[1], block.block_index[2]};
}
inline dim3 block_dim() { return {current_block().threads(), 1, 1}; }
}  // namespace layerstream::cuda_host

#define threadIdx (layerstream::cuda_host::thread_index())
#define blockIdx (layerstream::cuda_host::block_index())
#define blockDim (layerstream::cuda_host::block_dim())

inline void __syncthreads() { layerstream::cuda_host::current_block().barrier(); }
inline void __syncwarp() { layerstream::cuda_host::current_block().exchange("__syncwarp", 0); }

template <class Value>
Value __shfl_sync(uint32_t, Value value, uint32_t lane) {
  return layerstream::cuda_host::current_block().exchange("__shfl_sync", value)[lane % 32];
}
template <class Value>
Value __shfl_xor_sync(uint32_t, Value value, uint32_t mask) {
  auto& block = layerstream::cuda_host::current_block();
  return block.exchange("__shfl_xor_sync", value)[block.lane() ^ mask];
}
template <class Value>
Value __shfl_up_sync(uint32_t, Value value, uint32_t delta) {
  auto& block = layerstream::cuda_host::current_block();
  const Value* const values = block.exchange("__shfl_up_sync", value);
  return values[block.lane() < delta ? block.lane() : block.lane() - delta];
}

inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline int __popc(uint32_t bits) { return std::popcount(bits); }
inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> (shift & 31));
}
// Byte i of the result is the byte of `low` and `high` that nibble i of the selector says.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t both = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (uint32_t i = 0; i < 4; ++i) result |= static_cast<uint32_t>(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
}
template <class Value>
Value __ldg(const Value* source) {
  return *source;
}

using std::max;
using std::min;

// What is inline PTX on a device (native/cuda/kernels/instructions.cuh).
namespace layerstream::cuda {

inline float half_value(uint32_t bits) { return float_from_half(static_cast<uint16_t>(bits)); }

// Two floats as float16, the first in the low half; to nearest, beyond the largest to infinity.
inline uint32_t pack_halves(float low, float high) {
  const auto nearest = [](float value) -> uint32_t {
    if (std::isnan(value)) return 0x7fff;
    return std::abs(value) < 65520.0f ? half_nearest(std::clamp(value, -kLargestHalf, kLargestHalf)) : value < 0 ? 0xfc00 : 0x7c00;
  };
  return nearest(low) | nearest(high) << 16;
}

inline void copy_async(void* shared, const void* source) { cuda_host::current_block().copy_later(shared, source, 16); }
inline void commit_copies() { cuda_host::current_block().commit_copies(); }
template <int kGroupsLeft>
void wait_for_copies() {
  cuda_host::current_block().wait_for_copies(kGroupsLeft);
}

// mma.sync.m16n8k16, as PTX lays out its fragments; `number` tells what a half is.
template <class Number>
void multiply_fragments(float (&sums)[4], const uint32_t (&a)[4], uint32_t first_b, uint32_t second_b, const Number& number) {
  struct Fragments {
    float a[8], b[4];
  };
  auto& block = cuda_host::current_block();
  Fragments own;
  for (uint32_t i = 0; i < 8; ++i) own.a[i] = number(a[i / 2] >> (i % 2 * 16) & 0xffff);
  for (uint32_t i = 0; i < 4; ++i) own.b[i] = number((i < 2 ? first_b : second_b) >> (i % 2 * 16) & 0xffff);
  const Fragments* const all = block.exchange("mma.sync", own);
  const uint32_t group = block.lane() / 4, pair = block.lane() % 4;
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = group + i / 2 * 8, column = 2 * pair + i % 2;
    float sum = sums[i];
    for (uint32_t k = 0; k < 16; ++k) {
      const Fragments& of_row = all[row % 8 * 4 + k % 8 / 2];
      const Fragments& of_column = all[column * 4 + k % 8 / 2];
      sum += of_row.a[k / 8 * 4 + row / 8 * 2 + k % 2] * of_column.b[k / 8 * 2 + k % 2];
    }
    sums[i] = sum;
  }
}

inline void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  multiply_fragments(sums, a, b[0], b[1], half_value);
}
inline void multiply_brain_tile(float (&sums)[4], const uint32_t (&a)[4], uint32_t first_b, uint32_t second_b) {
  multiply_fragments(sums, a, first_b, second_b, [](uint32_t bits) { return std::bit_cast<float>(bits << 16); });
}

template <bool kTransposed>
void load_matrices(uint32_t (&words)[4], const uint16_t* row) {
  auto& block = cuda_host::current_block();
  block.check_aligned("ldmatrix", row, 16);
  const uint16_t* const* const rows = block.exchange(kTransposed ? "ldmatrix.trans" : "ldmatrix", row);
  const uint32_t group = block.lane() / 4, pair = block.lane() % 4;
  for (uint32_t m = 0; m < 4; ++m) {
    const auto element = [&](uint32_t i) -> uint32_t {
      return kTransposed ? rows[8 * m + 2 * pair + i][group] : rows[8 * m + group][2 * pair + i];
    };
    words[m] = element(0) | element(1) << 16;
  }
}

}  // namespace layerstream::cuda
