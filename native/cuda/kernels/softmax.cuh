// Sums weighted by a softmax, in parts: each is relative to the largest score of its own.
#pragma once

#include "functions.cuh"

namespace layerstream::cuda {

// What weights relative to `from` are multiplied by to be relative to `to`, which is no less.
__device__ __forceinline__ float rescale(float from, float to) { return from == -INFINITY ? 0.0f : expf(from - to); }

// Largest score and total of weights of what has been seen.
struct SoftmaxState {
  float largest, total;
};

// What a state and another part are multiplied by when the part is added; the state becomes that of both.
struct SoftmaxFactors {
  float state, part;
};
__device__ __forceinline__ SoftmaxFactors merge(SoftmaxState& state, SoftmaxState part) {
  const float largest = fmaxf(state.largest, part.largest);
  const SoftmaxFactors factors = {rescale(state.largest, largest), rescale(part.largest, largest)};
  state.total = fmaf(state.total, factors.state, part.total * factors.part);
  state.largest = largest;
  return factors;
}
__device__ __forceinline__ float merge(float sum, float part, SoftmaxFactors factors) {
  return fmaf(sum, factors.state, part * factors.part);
}

// A sink is as a key that comes first and whose value is 0.
__device__ __forceinline__ SoftmaxState first_state(const float* sinks, uint32_t head) {
  if (sinks == nullptr) return {-INFINITY, 0.0f};
  return {sinks[head], 1.0f};
}

}  // namespace layerstream::cuda
