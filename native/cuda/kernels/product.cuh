// What products of few and of many tokens share.
#pragma once

#include "arguments.h"
#include "instructions.cuh"

namespace layerstream::cuda {

// From the sum of a row and a token to the output.
__device__ __forceinline__ void write_sum(const MatmulArguments& arguments, uint32_t token, uint32_t row, float sum) {
  float* const output = arguments.output + size_t{token} * arguments.output_stride + row;
  float value = sum;
  if (arguments.row_scale != nullptr) value *= arguments.row_scale[row];
  if (arguments.bias != nullptr) value += arguments.bias[row];
  value *= arguments.scale;
  *output = arguments.accumulate ? *output + value : value;
}

}  // namespace layerstream::cuda
