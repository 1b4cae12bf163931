// Keys or values on their way into the cache: a warp is a vector of block (token, KV head).
#include "kv_cache.cuh"

namespace layerstream::cuda {

namespace {

__device__ __forceinline__ void put_codes(const float* source, uint32_t dim, int8_t* codes, float* scale_place) {
  float largest = 0.0f;
  bool finite = true;
  for (uint32_t i = threadIdx.x; i < dim; i += kWarpThreads) {
    const float magnitude = fabsf(source[i]);
    finite = finite && __float_as_uint(magnitude) < 0x7f800000u;
    largest = fmaxf(largest, magnitude);
  }
  largest = largest_of_warp(finite ? largest : __uint_as_float(0x7f800000u));
  finite = __float_as_uint(largest) < 0x7f800000u;
  const bool zero = largest < 0x1p-100f;
  const float scale = largest / 127.0f;
  if (threadIdx.x == 0) *scale_place = !finite ? __uint_as_float(0x7fc00000u) : zero ? 0.0f : scale;
  for (uint32_t i = threadIdx.x; i < dim; i += kWarpThreads) {
    codes[i] = !finite || zero ? int8_t{0} : static_cast<int8_t>(max(min(__float2int_rn(source[i] / scale), 127), -128));
  }
}

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ uint16_t brain_float(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

KERNEL(append, AppendArguments, 32, 1) {
  const uint32_t token = blockIdx.x, head = blockIdx.y, dim = arguments.dim, positions = arguments.page_positions;
  const uint32_t position = arguments.first_position + token, within = position % positions;
  const float* const source = arguments.source + size_t{token} * arguments.stride + size_t{head} * dim;
  uint8_t* const page = arguments.cache + arguments.pages[position / positions] * arguments.page_bytes;
  const size_t first = size_t{within} * dim;
  if (arguments.format == KvFormat::kF32) {
    float* const target = reinterpret_cast<float*>(page + head * block_bytes<KvFormat::kF32>(positions, dim)) + first;
    for (uint32_t i = threadIdx.x; i < dim; i += kWarpThreads) target[i] = source[i];
  } else if (arguments.format == KvFormat::kBF16) {
    uint16_t* const target = reinterpret_cast<uint16_t*>(page + head * block_bytes<KvFormat::kBF16>(positions, dim)) + first;
    for (uint32_t i = threadIdx.x; i < dim; i += kWarpThreads) target[i] = brain_float(source[i]);
  } else {
    uint8_t* const block = page + head * block_bytes<KvFormat::kQ8>(positions, dim);
    float* const scales = reinterpret_cast<float*>(block + scales_offset(positions, dim));
    put_codes(source, dim, reinterpret_cast<int8_t*>(block) + first, scales + within);
  }
}

}  // namespace layerstream::cuda
