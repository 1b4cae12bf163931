// Numbers as float16 relative to a power of two, so that results do not depend on a model's scale: the largest has an
// exponent of kTopExponent, and 2^-38 of it is the least that does not vanish.
#pragma once

#include "functions.cuh"

namespace layerstream::cuda {

constexpr int32_t kTopExponent = 14;
// Of what is all zeros, or less than this.
constexpr int32_t kLeastExponent = -100;

// 2^exponent; 0 where that is no normal number.
__device__ __forceinline__ float power(int32_t exponent) {
  return exponent < -126 ? 0.0f : __uint_as_float(static_cast<uint32_t>(min(exponent, 128) + 127) << 23);
}

// Of a magnitude's bits; 128 for what is not finite.
__device__ __forceinline__ int32_t exponent_of(uint32_t magnitude_bits) {
  return max(static_cast<int32_t>(magnitude_bits >> 23) - 127, kLeastExponent);
}

__device__ __forceinline__ uint32_t magnitude_bits(float value) { return __float_as_uint(value) & 0x7fffffffu; }

}  // namespace layerstream::cuda
