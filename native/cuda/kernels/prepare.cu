// Inputs of fast products of many tokens: relative to the token's largest, the sum of two float16, of which the second is what
// the first leaves. A block is a token.
#include "arguments.h"
#include "scaled.cuh"

namespace layerstream::cuda {

KERNEL(prepare_inputs, PrepareArguments, 256, 4) {
  __shared__ uint32_t partial[kWarpThreads];
  const float* const input = arguments.input + size_t{blockIdx.x} * arguments.input_stride;
  const uint32_t columns = arguments.columns, padded = arguments.padded_columns;
  uint32_t largest = 0;
  for (uint32_t i = threadIdx.x; i < columns; i += blockDim.x) largest = max(largest, magnitude_bits(input[i]));
#pragma unroll
  for (uint32_t distance = kWarpThreads / 2; distance > 0; distance /= 2) {
    largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  if (threadIdx.x % kWarpThreads == 0) partial[threadIdx.x / kWarpThreads] = largest;
  __syncthreads();
  for (uint32_t warp = 0; warp < blockDim.x / kWarpThreads; ++warp) largest = max(largest, partial[warp]);
  const int32_t exponent = exponent_of(largest);
  const float scale = power(kTopExponent - exponent);
  if (threadIdx.x == 0) arguments.factors[blockIdx.x] = exponent == 128 ? __uint_as_float(0x7fc00000u) : power(exponent - kTopExponent);
  uint32_t* const output = arguments.halves + size_t{blockIdx.x} * padded;
  for (uint32_t pair = threadIdx.x; pair < padded / 2; pair += blockDim.x) {
    const float first = 2 * pair < columns ? input[2 * pair] * scale : 0.0f;
    const float second = 2 * pair + 1 < columns ? input[2 * pair + 1] * scale : 0.0f;
    const uint32_t nearest = pack_halves(first, second);
    output[pair] = nearest;
    output[padded / 2 + pair] = pack_halves(first - half_value(nearest & 0xffff), second - half_value(nearest >> 16));
  }
}

}  // namespace layerstream::cuda
