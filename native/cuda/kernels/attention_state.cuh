// What of the positions a token sees, and what attention keeps of a head between parts of them.
#pragma once

#include "arguments.h"
#include "softmax.cuh"

namespace layerstream::cuda {

// Of the part that the op attends to, what a token sees.
struct Splits {
  uint32_t begin, end;
};
__device__ __forceinline__ Splits splits_of(const AttentionArguments& arguments, uint32_t token) {
  const uint32_t end = arguments.first_position + token + 1;
  const uint32_t begin = arguments.window != 0 && end > arguments.window ? end - arguments.window : 0;
  return {max(begin / kSplitPositions, arguments.part_begin), min((end - 1) / kSplitPositions + 1, arguments.part_end)};
}

// Where parts keep a head of a token: largest, total, sums.
__device__ __forceinline__ float* state_of(const AttentionArguments& arguments, uint32_t token, uint32_t head) {
  return arguments.state + (size_t{token} * arguments.heads + head) * (arguments.value_dim + 2);
}

__device__ __forceinline__ SoftmaxState first_state(const AttentionArguments& arguments, uint32_t token, uint32_t head) {
  if (arguments.begins) return first_state(arguments.sinks, head);
  const float* const state = state_of(arguments, token, head);
  return {state[0], state[1]};
}

__device__ __forceinline__ float first_sum(const AttentionArguments& arguments, uint32_t token, uint32_t head, uint32_t d) {
  return arguments.begins ? 0.0f : state_of(arguments, token, head)[2 + d];
}

// Of a head of a token, element d: for the next part, or the result. Every thread that does so has read the state before.
__device__ __forceinline__ void leave(const AttentionArguments& arguments, uint32_t token, uint32_t head, uint32_t d, float sum,
                                      SoftmaxState state) {
  if (arguments.ends) {
    arguments.output[size_t{token} * arguments.output_stride + size_t{head} * arguments.value_dim + d] = sum / state.total;
    return;
  }
  float* const left = state_of(arguments, token, head);
  left[2 + d] = sum;
  if (d != 0) return;
  left[0] = state.largest;
  left[1] = state.total;
}

}  // namespace layerstream::cuda
