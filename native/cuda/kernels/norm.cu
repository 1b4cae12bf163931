// A block normalises a group of a token.
#include "arguments.h"
#include "instructions.cuh"

namespace layerstream::cuda {

KERNEL(normalize, NormArguments, 1024, 1) {
  const uint32_t width = arguments.width, group = blockIdx.y;
  const float* const source = arguments.input + size_t{blockIdx.x} * arguments.input_stride + size_t{group} * width;
  float* const target = arguments.output + size_t{blockIdx.x} * arguments.output_stride + size_t{group} * width;
  const size_t parameters = arguments.group_weights ? size_t{group} * width : 0;
  float mean = 0.0f;
  if (arguments.centered) {
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) sum += source[i];
    mean = sum_of_block(sum) / static_cast<float>(width);
  }
  float squares = 0.0f;
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float difference = source[i] - mean;
    squares = fmaf(difference, difference, squares);
  }
  const float factor = 1.0f / sqrtf(sum_of_block(squares) / static_cast<float>(width) + arguments.epsilon);
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
    float value = (source[i] - mean) * factor;
    if (arguments.weight != nullptr) value *= arguments.weight[parameters + i];
    if (arguments.bias != nullptr) value += arguments.bias[parameters + i];
    target[i] = arguments.accumulate ? target[i] + value : value;
  }
}

}  // namespace layerstream::cuda
