// What instructions.cuh has for AMD's GPUs, as hipcc compiles it. Warps are 32 lanes also where the hardware has 64: two of them
// run side by side then. No matrix instructions: the launcher takes the kernels of devices without.
#pragma once

#include <hip/hip_runtime.h>

#include <cstdint>
#include <cstring>

#define KERNEL(name, Arguments, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads) name(const Arguments arguments)

namespace layerstream::cuda {

// Masks are of all lanes everywhere.
template <class Value>
__device__ __forceinline__ Value __shfl_xor_sync(uint32_t, Value value, uint32_t distance) {
  return __shfl_xor(value, static_cast<int>(distance), 32);
}
template <class Value>
__device__ __forceinline__ Value __shfl_up_sync(uint32_t, Value value, uint32_t distance) {
  return __shfl_up(value, distance, 32);
}
template <class Value>
__device__ __forceinline__ Value __shfl_sync(uint32_t, Value value, uint32_t lane) {
  return __shfl(value, static_cast<int>(lane), 32);
}
__device__ __forceinline__ void __syncwarp() { __builtin_amdgcn_wave_barrier(); }
__device__ __forceinline__ uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t bits) {
  return __builtin_amdgcn_alignbit(high, low, bits);
}

__device__ __forceinline__ float half_value(uint32_t bits) {
  const auto number = static_cast<uint16_t>(bits);
  _Float16 half;
  memcpy(&half, &number, sizeof half);
  return half;
}

__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
  const _Float16 halves[] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
  uint32_t bits;
  memcpy(&bits, halves, sizeof bits);
  return bits;
}

__device__ __forceinline__ void copy_async(void* shared, const void* source) { *static_cast<uint4*>(shared) = *static_cast<const uint4*>(source); }
__device__ __forceinline__ void commit_copies() {}
template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {}
__device__ __forceinline__ void multiply_tile(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2]) {}

}  // namespace layerstream::cuda
