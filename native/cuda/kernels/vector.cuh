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

template <Format kFormat>
__device__ __forceinline__ typename Codec<kFormat>::Unit load_unit(const RowLayout& layout, const uint8_t* row, uint32_t unit) {
  if constexpr (kFormat == Format::kBF16Window) return Codec<kFormat>::begin(layout, row, unit);
  return Codec<kFormat>::load(layout, row, unit);
}

template <Format kFormat, uint32_t kTokens, uint32_t kRows>
__device__ __forceinline__ void multiply_vectors(const MatmulArguments& arguments) {
  using Weights = Codec<kFormat>;
  using Unit = typename Weights::Unit;
  constexpr uint32_t kQuads = Weights::kUnit / 4, kScaleQuads = Weights::kScaleQuads;
  float2* const pairs = reinterpret_cast<float2*>(dynamic_shared());
  float* const inputs = reinterpret_cast<float*>(dynamic_shared() + (uses_levels(kFormat) ? kPairTableBytes : 0));
  const RowLayout& layout = arguments.layout;
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t chunk = arguments.chunk_columns, units = units_of<Weights>(layout.columns);
  const uint32_t token_groups = (arguments.tokens + kTokens - 1) / kTokens;
  const uint32_t first_token = blockIdx.x % token_groups * kTokens;
  const uint32_t first_row = (blockIdx.x / token_groups * kVectorWarps + warp) * arguments.rows_per_warp;
  if constexpr (uses_levels(kFormat)) fill_pairs(kFormat != Format::kMxfp4, pairs);

  for (uint32_t run = 0; run < arguments.rows_per_warp; run += kRows) {
    // Where rows run out, the last one stands in and its extra results are dropped.
    const uint8_t* rows[kRows];
#pragma unroll
    for (uint32_t r = 0; r < kRows; ++r) {
      rows[r] = arguments.weight + min(first_row + run + r, arguments.rows - 1) * arguments.row_bytes;
    }
    const bool wanted = first_row + run < arguments.rows;
    float sums[kRows][kTokens] = {};
    for (uint32_t begin = 0; begin < layout.columns; begin += chunk) {
      const uint32_t end = wanted ? min(units, (begin + chunk) / Weights::kUnit) : 0;
      const uint32_t first_unit = begin / Weights::kUnit;
      Unit next[kRows] = {};
      if (first_unit + lane < end) {
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) next[r] = load_unit<kFormat>(layout, rows[r], first_unit + lane);
      }
      if (run == 0 || chunk < layout.columns) {
        __syncthreads();
        load_inputs<kTokens>(arguments, first_token, begin, inputs);
        __syncthreads();
      }
      for (uint32_t warp_unit = first_unit; warp_unit < end; warp_unit += kWarpThreads) {
        const uint32_t unit = warp_unit + lane;
        Unit units_now[kRows];
#pragma unroll
        for (uint32_t r = 0; r < kRows; ++r) units_now[r] = next[r];
        if (unit + kWarpThreads < end) {
#pragma unroll
          for (uint32_t r = 0; r < kRows; ++r) next[r] = load_unit<kFormat>(layout, rows[r], unit + kWarpThreads);
        }
        if constexpr (kFormat == Format::kBF16Window) {
#pragma unroll
          for (uint32_t r = 0; r < kRows; ++r) Weights::settle(units_now[r], unit < end);
        }
        if (unit >= end) continue;
#pragma unroll
        for (uint32_t first = 0; first < kQuads; first += kScaleQuads) {
          float partial[kRows][kTokens] = {};
#pragma unroll
          for (uint32_t index = first; index < first + kScaleQuads; ++index) {
            uint32_t quad = index;
            if constexpr (uses_levels(kFormat)) quad = Weights::quad_at(index);
            float4 input[kTokens];
            const uint32_t place = place_of(Weights::column(unit, quad) - begin);
#pragma unroll
            for (uint32_t t = 0; t < kTokens; ++t) {
              input[t] = *reinterpret_cast<const float4*>(inputs + t * place_of(chunk) + place);
            }
#pragma unroll
            for (uint32_t r = 0; r < kRows; ++r) {
              float weights[4];
              if constexpr (uses_levels(kFormat)) {
                Weights::decode_pairs(units_now[r], quad, pairs, weights);
              } else {
                Weights::decode(units_now[r], quad, weights);
              }
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
    const uint32_t row = first_row + run + lane % kRows, token = first_token + lane / kRows;
    if (lane < kRows * kTokens && row < arguments.rows && token < arguments.tokens) write_sum(arguments, token, row, own);
  }
}

// Rows at once, as registers allow: two blocks share a multiprocessor's.
template <Format kFormat>
constexpr bool kLargeUnits = sizeof(typename Codec<kFormat>::Unit) > 40;
template <Format kFormat>
constexpr uint32_t kRowsOfOne = kLargeUnits<kFormat> || kFormat == Format::kBF16Window ? 2 : 4;
template <Format kFormat>
constexpr uint32_t kRowsOfMore = sizeof(typename Codec<kFormat>::Unit) > 32 || kFormat == Format::kF32 ? 1 : 2;

// Kernels of a format: for one token, and for up to four at a time.
#define VECTOR_KERNELS(format, suffix)                                                   \
  KERNEL(vector_##suffix, MatmulArguments, kVectorThreads, 2) {                          \
    multiply_vectors<Format::format, 1, kRowsOfOne<Format::format>>(arguments);          \
  }                                                                                      \
  KERNEL(vectors_##suffix, MatmulArguments, kVectorThreads, 2) {                         \
    multiply_vectors<Format::format, 4, kRowsOfMore<Format::format>>(arguments);         \
  }

}  // namespace layerstream::cuda
