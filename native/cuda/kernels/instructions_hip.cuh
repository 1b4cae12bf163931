// What instructions.cuh has for AMD's GPUs, as hipcc compiles it, but for tensor cores: the launcher takes the kernels of devices
// without. Warps are 32 lanes also where the hardware has 64. Two of them run as one then, which is right: a lane exchanges with
// lanes of its own half only, all lanes of a half reach an exchange together, and halves that branch apart take turns.
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
// Lanes need no waiting for; shared memory that others have written must not be read before.
__device__ __forceinline__ void __syncwarp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
__device__ __forceinline__ uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t bits) {
  return __builtin_amdgcn_alignbit(high, low, bits);
}

__device__ __forceinline__ float half_value(uint32_t bits) {
  const auto number = static_cast<uint16_t>(bits);
  _Float16 half;
  memcpy(&half, &number, sizeof half);
  return half;
}

}  // namespace layerstream::cuda
