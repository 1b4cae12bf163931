// Products of few tokens with a matrix of one format: bound by the memory that the weights are in.
//
// A warp multiplies kRows rows at once; a lane takes every 32nd unit of each, whose loads are under way while it works on
// the one before. Inputs are in shared memory, with four floats between every 32 so that lanes whose units are 4, 8, 16 or 32
// columns long read from different banks. A sum has one chain of fused multiply-adds a lane, columns ascending, and then a
// tree over lanes: the same bits whatever kRows, kTokens and the grid are.
#pragma once

#include "codecs.cuh"
#include "product.cuh"

namespace layerstream::cuda {

constexpr uint32_t kVectorThreads = 256, kVectorWarps = kVectorThreads / kWarpThreads;

// Of a column in shared memory.
__device__ __forceinline__ uint32_t place_of(uint32_t column) { return column + column / 32 * 4; }

// Inputs of columns [begin, begin + chunk), zeros behind the last column.
template <uint32_t kTokens>
__device__ __forceinline__ void load_inputs(const MatmulArguments& arguments, uint32_t first_token, uint32_t begin, float* inputs) {
  const uint32_t chunk = arguments.chunk_columns;
#pragma unroll
  for (uint32_t t = 0; t < kTokens; ++t) {
    const float* const input = arguments.input + size_t{min(first_token + t, arguments.tokens - 1)} * arguments.input_stride;
    for (uint32_t i = threadIdx.x; i < chunk; i += kVectorThreads) {
      inputs[t * place_of(chunk) + place_of(i)] = begin + i < arguments.layout.columns ? input[begin + i] : 0.0f;
    }
  }
}

template <Format kFormat, uint32_t kTokens, uint32_t kRows>
__device__ __forceinline__ void multiply_vectors(const MatmulArguments& arguments) {
  using Weights = Codec<kFormat>;
  using Unit = typename Weights::Unit;
  constexpr uint32_t kQuads = Weights::kUnit / 4, kScaleQuads = Weights::kScaleQuads;
  float* const inputs = reinterpret_cast<float*>(dynamic_shared());
  const RowLayout& layout = arguments.layout;
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t chunk = arguments.chunk_columns, units = units_of<Weights>(layout.columns);
  const uint32_t token_groups = (arguments.tokens + kTokens - 1) / kTokens;
  const uint32_t first_token = blockIdx.x % token_groups * kTokens;
  const uint32_t first_row = (blockIdx.x / token_groups * kVectorWarps + warp) * arguments.rows_per_warp;
  if constexpr (uses_levels(kFormat)) fill_levels(kFormat != Format::kMxfp4);

  for (uint32_t index = 0; index < arguments.rows_per_warp; index += kRows) {
    // Where rows run out, the last one stands in and its extra results are dropped.
    const uint8_t* rows[kRows];
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) {
      rows[r] = arguments.weight + min(first_row + index + r, arguments.rows - 1) * arguments.row_bytes;
    }
    const bool wanted = first_row + index < arguments.rows;
    float sums[kRows][kTokens] = {};
    for (uint32_t begin = 0; begin < layout.columns; begin += chunk) {
      const uint32_t end = wanted ? min(units, (begin + chunk) / Weights::kUnit) : 0;
      uint32_t unit = begin / Weights::kUnit + lane;
      Unit next[kRows];
      if (unit < end) {
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) next[r] = Weights::load(layout, rows[r], unit);
      }
      if (index == 0 || chunk < layout.columns) {
        __syncthreads();
        load_inputs<kTokens>(arguments, first_token, begin, inputs);
        __syncthreads();
      }
      for (; unit < end; unit += kWarpThreads) {
        Unit units_now[kRows];
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) units_now[r] = next[r];
        if (unit + kWarpThreads < end) {
#pragma unroll
          for (uint32_t r = 0; r < kRows; ++r) next[r] = Weights::load(layout, rows[r], unit + kWarpThreads);
        }
#pragma unroll
        for (uint32_t first = 0; first < kQuads; first += kScaleQuads) {
          float partial[kRows][kTokens] = {};
#pragma unroll
          for (uint32_t quad = first; quad < first + kScaleQuads; ++quad) {
            float4 input[kTokens];
            const uint32_t place = place_of(Weights::column(unit, quad) - begin);
#pragma unroll
            for (uint32_t t = 0; t < kTokens; ++t) {
              input[t] = *reinterpret_cast<const float4*>(inputs + t * place_of(chunk) + place);
            }
#pragma unroll
            for (uint32_t r = 0; r < kRows; ++r) {
              float weights[4];
              Weights::decode(units_now[r], quad, weights);
#pragma unroll
              for (uint32_t t = 0; t < kTokens; ++t) {
                float& sum = partial[r][t];
                sum = fmaf(weights[0], input[t].x, sum);
                sum = fmaf(weights[1], input[t].y, sum);
                sum = fmaf(weights[2], input[t].z, sum);
                sum = fmaf(weights[3], input[t].w, sum);
              }
            }
          }
#pragma unroll
          for (uint32_t r = 0; r < kRows; ++r) {
#pragma unroll
            for (uint32_t t = 0; t < kTokens; ++t) {
              sums[r][t] = fmaf(partial[r][t], Weights::scale(units_now[r], first), sums[r][t]);
            }
          }
        }
      }
    }
    float own = 0.0f;
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) {
#pragma unroll
      for (uint32_t t = 0; t < kTokens; ++t) {
        const float sum = sum_of_warp(sums[r][t]);
        if (lane == t * kRows + r) own = sum;
      }
    }
    const uint32_t row = first_row + index + lane % kRows, token = first_token + lane / kRows;
    if (lane < kRows * kTokens && row < arguments.rows && token < arguments.tokens) write_sum(arguments, token, row, own);
  }
}

// Kernels of a format: for one token, and for up to four at a time.
#define VECTOR_KERNELS(format, suffix)                                                                                   \
  KERNEL(vector_##suffix, MatmulArguments, kVectorThreads, 2) { multiply_vectors<Format::format, 1, 4>(arguments); }      \
  KERNEL(vectors_##suffix, MatmulArguments, kVectorThreads, 2) { multiply_vectors<Format::format, 4, 2>(arguments); }

}  // namespace layerstream::cuda
