// Keys and values in the paged cache (backend/kv_format.h).
#pragma once

#include "arguments.h"
#include "instructions.cuh"

namespace layerstream::cuda {

// Where in a block the scales begin, and how long it is.
__device__ __forceinline__ size_t scales_offset(uint32_t positions, uint32_t dim) { return (size_t{positions} * dim + 3) / 4 * 4; }

template <KvFormat kFormat>
__device__ __forceinline__ size_t block_bytes(uint32_t positions, uint32_t dim) {
  if constexpr (kFormat == KvFormat::kQ8) return scales_offset(positions, dim) + positions * sizeof(float);
  return size_t{positions} * dim * (kFormat == KvFormat::kF32 ? 4 : 2);
}

// The vectors of a KV head on one page.
struct Vectors {
  const uint8_t* elements;
  const float* scales;
};

template <KvFormat kFormat>
__device__ __forceinline__ Vectors find_vectors(const uint8_t* cache, size_t page, uint32_t positions, uint32_t dim, uint32_t head) {
  const uint8_t* const block = cache + page + head * block_bytes<kFormat>(positions, dim);
  return {block, reinterpret_cast<const float*>(block + scales_offset(positions, dim))};
}

// Elements [first, first + 4) of a vector, before its scale; 0 behind the last. `aligned`: all at once.
template <KvFormat kFormat>
__device__ __forceinline__ float4 load_four(const uint8_t* vector, uint32_t first, uint32_t dim, bool aligned) {
  if (first >= dim) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  float four[4];
  if constexpr (kFormat == KvFormat::kF32) {
    const float* const source = reinterpret_cast<const float*>(vector) + first;
    if (aligned) return *reinterpret_cast<const float4*>(source);
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) four[i] = first + i < dim ? source[i] : 0.0f;
  } else if constexpr (kFormat == KvFormat::kBF16) {
    const uint16_t* const source = reinterpret_cast<const uint16_t*>(vector) + first;
    if (aligned) {
      const uint2 pairs = *reinterpret_cast<const uint2*>(source);
      return make_float4(__uint_as_float(pairs.x << 16), __uint_as_float(pairs.x & 0xffff0000u), __uint_as_float(pairs.y << 16),
                         __uint_as_float(pairs.y & 0xffff0000u));
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) four[i] = first + i < dim ? __uint_as_float(static_cast<uint32_t>(source[i]) << 16) : 0.0f;
  } else {
    const int8_t* const source = reinterpret_cast<const int8_t*>(vector) + first;
    if (aligned) {
      const uint32_t codes = *reinterpret_cast<const uint32_t*>(source) ^ 0x80808080u;
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        four[i] = __uint_as_float(__byte_perm(codes, 0x4b000000u, 0x7440u | i)) - 8388736.0f;
      }
    } else {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) four[i] = first + i < dim ? static_cast<float>(source[i]) : 0.0f;
    }
  }
  return make_float4(four[0], four[1], four[2], four[3]);
}

}  // namespace layerstream::cuda
