// The ops that treat every float apart: a thread of block (token, .) is one of them. Compiled without contraction: sums of
// products are written as fmaf.
#include "arguments.h"
#include "functions.cuh"

namespace layerstream::cuda {

__device__ __forceinline__ uint32_t element() { return blockIdx.y * blockDim.x + threadIdx.x; }
__device__ __forceinline__ size_t token() { return blockIdx.x; }

// (1 + tanh(u)) / 2 is the sigmoid of 2u.
__device__ __forceinline__ float activate(Activation activation, float x) {
  if (activation == Activation::kSilu) return x * sigmoid(x);
  if (activation == Activation::kGelu) return x * erfcf(-x * 0.70710678f) * 0.5f;
  return x * sigmoid(1.5957691216057308f * fmaf(0.044715f * x * x, x, x));
}

KERNEL(activation, ActivationArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  float* const target = arguments.gate + token() * arguments.gate_stride + i;
  const float factor = arguments.up == nullptr ? 1.0f : arguments.up[token() * arguments.up_stride + i];
  if (arguments.activation == Activation::kClampedSwiglu) {
    const float g = fminf(*target, arguments.limit), u = fmaxf(fminf(factor, arguments.limit), -arguments.limit);
    *target = g * sigmoid(arguments.alpha * g) * (u + 1.0f);
  } else {
    *target = activate(arguments.activation, *target) * factor;
  }
}

KERNEL(scale_tokens, ScaleTokensArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  arguments.target[token() * arguments.target_stride + i] *= sigmoid(arguments.factor[token() * arguments.factor_stride]);
}

KERNEL(soft_cap, SoftCapArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  float* const value = arguments.target + token() * arguments.stride + i;
  *value = arguments.cap * hyperbolic_tangent(*value / arguments.cap);
}

KERNEL(gather_rows, IndexedArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  const size_t row = arguments.indexes[token()];
  arguments.output[token() * arguments.output_stride + i] = arguments.input[row * arguments.input_stride + i];
}

KERNEL(scatter_add, IndexedArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  float* const target = arguments.output + size_t{arguments.indexes[token()]} * arguments.output_stride + i;
  *target = fmaf(arguments.weights[token()], arguments.input[token() * arguments.input_stride + i], *target);
}

KERNEL(permute, IndexedArguments, 256, 4) {
  const uint32_t i = element();
  if (i >= arguments.width) return;
  arguments.output[token() * arguments.output_stride + i] =
      arguments.input[token() * arguments.input_stride + arguments.indexes[i]];
}

// A thread is a pair of a head.
KERNEL(rope, RopeArguments, 256, 4) {
  const uint32_t half_dim = arguments.rotary_dim / 2, index = element();
  if (index >= arguments.heads * half_dim) return;
  const uint32_t head = index / half_dim, i = index % half_dim;
  float* const start = arguments.target + token() * arguments.stride + size_t{head} * arguments.head_dim + arguments.offset;
  float* const first = start + (arguments.interleaved ? 2 * i : i);
  float* const second = start + (arguments.interleaved ? 2 * i + 1 : i + half_dim);
  const float c = arguments.cosine[token() * half_dim + i], s = arguments.sine[token() * half_dim + i];
  const float a = *first, b = *second;
  *first = a * c - b * s;
  *second = a * s + b * c;
}

}  // namespace layerstream::cuda
