// Products of many tokens in float32: 64 rows by 64 tokens a block, four by four a thread. A sum is one chain of fused
// multiply-adds for 64 columns; those are added in ascending order.
#include "tile.cuh"

namespace layerstream::cuda {

namespace {

constexpr uint32_t kExactRows = 64, kExactTokens = 64, kSide = 16, kOwn = 4;
// Threads that read neighbouring rows read from different banks.
constexpr uint32_t kStride = kTileColumns + 4;

}  // namespace

KERNEL(matrix_exact, MatmulArguments, kTileThreads, 2) {
  __shared__ __align__(16) float weights[kExactRows * kStride];
  __shared__ __align__(16) float inputs[kExactTokens * kStride];
  const TilePlace place = tile_place(arguments, kExactRows, kExactTokens);
  const uint32_t own_row = threadIdx.x / kSide, own_token = threadIdx.x % kSide;
  const uint32_t columns = arguments.layout.columns;
  if (uses_levels(arguments.format)) fill_levels(arguments.format != Format::kMxfp4);
  float sums[kOwn][kOwn] = {};
  for (uint32_t tile = 0; tile * kTileColumns < columns; ++tile) {
    __syncthreads();
    with_codec(arguments.format, [&](auto codec) {
      using Weights = decltype(codec);
      for (uint32_t index = threadIdx.x; index < kExactRows * 16 / Weights::kItemQuads; index += kTileThreads) {
        const auto decoded = decode_item<Weights>(arguments, place.row, tile, index);
#pragma unroll
        for (uint32_t i = 0; i < Weights::kItemQuads; ++i) {
          const float(&quad)[4] = decoded.weights[i];
          *reinterpret_cast<float4*>(weights + decoded.row * kStride + decoded.columns[i]) = make_float4(quad[0], quad[1], quad[2], quad[3]);
        }
      }
    });
    for (uint32_t i = threadIdx.x; i < kExactTokens * kTileColumns; i += kTileThreads) {
      const uint32_t token = min(place.token + i / kTileColumns, arguments.tokens - 1), column = tile * kTileColumns + i % kTileColumns;
      inputs[i / kTileColumns * kStride + i % kTileColumns] =
          column < columns ? arguments.input[size_t{token} * arguments.input_stride + column] : 0.0f;
    }
    __syncthreads();
    float partial[kOwn][kOwn] = {};
#pragma unroll 4
    for (uint32_t k = 0; k < kTileColumns; k += 4) {
      float4 row[kOwn], token[kOwn];
#pragma unroll
      for (uint32_t i = 0; i < kOwn; ++i) {
        row[i] = *reinterpret_cast<const float4*>(weights + (own_row + i * kSide) * kStride + k);
        token[i] = *reinterpret_cast<const float4*>(inputs + (own_token + i * kSide) * kStride + k);
      }
#pragma unroll
      for (uint32_t r = 0; r < kOwn; ++r) {
#pragma unroll
        for (uint32_t t = 0; t < kOwn; ++t) {
          float& sum = partial[r][t];
          sum = fmaf(row[r].x, token[t].x, sum);
          sum = fmaf(row[r].y, token[t].y, sum);
          sum = fmaf(row[r].z, token[t].z, sum);
          sum = fmaf(row[r].w, token[t].w, sum);
        }
      }
    }
#pragma unroll
    for (uint32_t r = 0; r < kOwn; ++r) {
#pragma unroll
      for (uint32_t t = 0; t < kOwn; ++t) sums[r][t] += partial[r][t];
    }
  }
#pragma unroll
  for (uint32_t r = 0; r < kOwn; ++r) {
#pragma unroll
    for (uint32_t t = 0; t < kOwn; ++t) {
      const uint32_t row = place.row + own_row + r * kSide, token = place.token + own_token + t * kSide;
      if (row < arguments.rows && token < arguments.tokens) write_sum(arguments, token, row, sums[r][t]);
    }
  }
}

}  // namespace layerstream::cuda
