// Single instructions, and what else differs between a device and the host that proves the kernels
// (test/native/cuda_host/cuda_host.h has all of it once more).
#pragma once

#include <cstdint>

#if defined(__HIP__)

#include "instructions_hip.cuh"

#elif !defined(LAYERSTREAM_CUDA_HOST)

#define KERNEL(name, Arguments, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)

namespace layerstream::cuda {

__device__ __forceinline__ float half_value(uint32_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<uint16_t>(bits)));
  return value;
}

// Two floats as float16, the first in the low half; to nearest.
__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
  uint16_t first, second;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(first) : "f"(low));
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(second) : "f"(high));
  return first | static_cast<uint32_t>(second) << 16;
}

// 16 bytes on their way to shared memory; both addresses are multiples of 16.
__device__ __forceinline__ void copy_async(void* shared, const void* source) {
#if __CUDA_ARCH__ >= 800
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(source);
#endif
}

__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int kGroupsLeft>
__device__ __forceinline__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
#endif
}

// sums += a * b for 16 x 16 and 16 x 8 elements of float16, in the fragments of mma.sync.m16n8k16. From compute capability
// 8.0 on; the launcher has other kernels for devices without.
__device__ __forceinline__ void multiply_tile(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The same of bfloat16.
__device__ __forceinline__ void multiply_brain_tile(float (&sums)[4], const uint32_t (&a)[4], uint32_t first_b, uint32_t second_b) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(first_b), "r"(second_b));
#endif
}

// Four matrices of 8 x 8 halves in shared memory, of whose rows lanes 8 * m to 8 * m + 7 have the addresses for matrix m, each a
// multiple of 16. Lane 4 * g + p gets of each the elements 2 * p and 2 * p + 1 of row g; transposed, those of column g.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const uint16_t* row) {
  const auto source = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(source)
                 : "memory");
  }
}

}  // namespace layerstream::cuda

#endif

namespace layerstream::cuda {

constexpr uint32_t kWarpThreads = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// The block's dynamic shared memory, which begins on a multiple of 128 bytes.
__device__ __forceinline__ uint8_t* dynamic_shared() {
#if defined(LAYERSTREAM_CUDA_HOST)
  return cuda_host::current_block().shared();
#else
  extern __shared__ __align__(128) uint8_t memory[];
  return memory;
#endif
}

__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
  for (uint32_t distance = kWarpThreads / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ __forceinline__ float largest_of_warp(float value) {
#pragma unroll
  for (uint32_t distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

// Over all threads of the block; every thread gets it.
__device__ __forceinline__ float sum_of_block(float value) {
  __shared__ float partial[kWarpThreads];
  value = sum_of_warp(value);
  const uint32_t lane = threadIdx.x % kWarpThreads, warps = blockDim.x / kWarpThreads;
  if (lane == 0) partial[threadIdx.x / kWarpThreads] = value;
  __syncthreads();
  value = sum_of_warp(lane < warps ? partial[lane] : 0.0f);
  __syncthreads();
  return value;
}

}  // namespace layerstream::cuda
