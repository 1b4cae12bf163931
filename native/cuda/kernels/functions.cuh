// Functions of one number.
#pragma once

#include "instructions.cuh"

namespace layerstream::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Its series near 0, where the quotient would lose digits.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
  const float square = x * x;
  const float series = fmaf(square, fmaf(square, fmaf(square, 62.0f / 2835.0f, -17.0f / 315.0f), 2.0f / 15.0f), -1.0f / 3.0f);
  return fabsf(x) < 0.3f ? fmaf(x * square, series, x) : 1.0f - 2.0f / (1.0f + expf(2.0f * x));
}

}  // namespace layerstream::cuda
