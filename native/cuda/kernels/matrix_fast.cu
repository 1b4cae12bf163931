// Products of many tokens on tensor cores: 128 rows by 64 tokens a block, 32 by 64 a warp. Inputs are sums of two float16:
// half of the warps multiply the first of each, half the second.
//
// Weights become float16 on their way to shared memory, relative to the largest of their row so far: where a tile has a
// larger one, what has been summed is scaled down by the power of two between them, which is exact. While a tile is
// multiplied, the inputs of the next one are copied and, warp by warp, its weights decoded. A sum takes columns in ascending
// order, whatever rows and tokens are in the block with it.
#include "scaled.cuh"
#include "tile.cuh"

namespace layerstream::cuda {

namespace {

constexpr uint32_t kRows = 128, kTokens = 64;
constexpr uint32_t kParts = 2;  // of an input, as prepare_inputs leaves them
constexpr uint32_t kWarpRows = 32, kRowWarps = kRows / kWarpRows;
constexpr uint32_t kRowTiles = kWarpRows / 16, kTokenTiles = kTokens / 8;
// In halves: the eight rows of a fragment are in different banks.
constexpr uint32_t kStride = kTileColumns + 8;

struct Memory {
  uint16_t weights[2][kRows * kStride];
  uint16_t inputs[2][kParts * kTokens * kStride];
  float factors[2][kRows];    // of the sums before the tile
  int32_t exponents[kRows];   // of the row's largest so far
  uint32_t changed[3];        // whether some factor is not 1: of this tile, the next, and the one before
};
static_assert(sizeof(Memory) == kMatrixFastSharedBytes);

__device__ __forceinline__ uint32_t two_halves(const uint16_t* source) { return *reinterpret_cast<const uint32_t*>(source); }

__device__ __forceinline__ void copy_inputs(const MatmulArguments& arguments, uint32_t first_token, uint32_t tile, uint16_t* inputs) {
  constexpr uint32_t kPieces = kTileColumns / 8;
  const uint32_t padded = (arguments.layout.columns + kTileColumns - 1) / kTileColumns * kTileColumns;
  for (uint32_t i = threadIdx.x; i < kParts * kTokens * kPieces; i += kTileThreads) {
    const uint32_t place = i / kPieces, piece = i % kPieces;
    const size_t token = min(first_token + place % kTokens, arguments.tokens - 1);
    const uint16_t* const source = arguments.halves + (token * kParts + place / kTokens) * padded;
    copy_async(inputs + place * kStride + piece * 8, source + tile * kTileColumns + piece * 8);
  }
  commit_copies();
}

// All threads of a warp, so that those of a row can agree on its largest.
template <class Weights>
__device__ __forceinline__ void decode_rows(const MatmulArguments& arguments, uint32_t first_row, uint32_t tile, Memory& memory) {
  constexpr uint32_t kItems = 16 / Weights::kItemQuads;
  const uint32_t stage = tile % 2;
  for (uint32_t index = threadIdx.x; index < kRows * kItems; index += kTileThreads) {
    const auto decoded = decode_item<Weights>(arguments, first_row, tile, index);
    uint32_t largest = 0;
#pragma unroll
    for (uint32_t i = 0; i < Weights::kItemQuads; ++i) {
#pragma unroll
      for (uint32_t c = 0; c < 4; ++c) largest = max(largest, magnitude_bits(decoded.weights[i][c]));
    }
#pragma unroll
    for (uint32_t distance = 1; distance < kItems; distance *= 2) {
      largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
    }
    const int32_t before = memory.exponents[decoded.row], exponent = max(before, exponent_of(largest));
    __syncwarp();
    if (index % kItems == 0) {
      memory.exponents[decoded.row] = exponent;
      memory.factors[stage][decoded.row] = power(before - exponent);
      if (before != exponent) memory.changed[tile % 3] = 1;
    }
    const float scale = power(kTopExponent - exponent);
    uint16_t* const row = memory.weights[stage] + decoded.row * kStride;
#pragma unroll
    for (uint32_t i = 0; i < Weights::kItemQuads; ++i) {
      const float(&quad)[4] = decoded.weights[i];
      uint32_t* const pairs = reinterpret_cast<uint32_t*>(row + decoded.columns[i]);
      pairs[0] = pack_halves(quad[0] * scale, quad[1] * scale);
      pairs[1] = pack_halves(quad[2] * scale, quad[3] * scale);
    }
  }
}

// Adds the products of a tile to the warp's sums.
__device__ __forceinline__ void multiply_step(const Memory& memory, uint32_t tile, uint32_t warp_row, uint32_t part,
                                              uint32_t row_tiles, uint32_t token_tiles,
                                              float (&sums)[kRowTiles][kTokenTiles][4]) {
  const uint32_t stage = tile % 2, group = threadIdx.x % kWarpThreads / 4, pair = threadIdx.x % 4;
  if (memory.changed[tile % 3] != 0) {
#pragma unroll
    for (uint32_t m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const float factor = memory.factors[stage][warp_row + 16 * m + 8 * half + group];
#pragma unroll
        for (uint32_t n = 0; n < kTokenTiles; ++n) {
          sums[m][n][2 * half] *= factor;
          sums[m][n][2 * half + 1] *= factor;
        }
      }
    }
  }
#pragma unroll
  for (uint32_t k = 0; k < kTileColumns; k += 16) {
    uint32_t rows[kRowTiles][4];
#pragma unroll
    for (uint32_t m = 0; m < kRowTiles; ++m) {
      const uint16_t* const first = memory.weights[stage] + (warp_row + 16 * m + group) * kStride + k + 2 * pair;
      rows[m][0] = two_halves(first);
      rows[m][1] = two_halves(first + 8 * kStride);
      rows[m][2] = two_halves(first + 8);
      rows[m][3] = two_halves(first + 8 * kStride + 8);
    }
#pragma unroll
    for (uint32_t n = 0; n < kTokenTiles; ++n) {
      if (n >= token_tiles) break;
      const uint16_t* const first = memory.inputs[stage] + (part * kTokens + 8 * n + group) * kStride + k + 2 * pair;
      const uint32_t tokens[2] = {two_halves(first), two_halves(first + 8)};
#pragma unroll
      for (uint32_t m = 0; m < kRowTiles; ++m) {
        if (m < row_tiles) multiply_tile(sums[m][n], rows[m], tokens);
      }
    }
  }
}

}  // namespace

KERNEL(matrix_fast, MatmulArguments, kTileThreads, 2) {
  Memory& memory = *reinterpret_cast<Memory*>(dynamic_shared());
  const TilePlace place = tile_place(arguments, kRows, kTokens);
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t group = lane / 4, pair = lane % 4;
  const uint32_t warp_row = warp % kRowWarps * kWarpRows, part = warp / kRowWarps;
  // Of eight tokens and of sixteen rows: those that there are.
  const auto count_of = [](uint32_t all, uint32_t first, uint32_t size) { return all > first ? (all - first + size - 1) / size : 0; };
  const uint32_t token_tiles = count_of(arguments.tokens, place.token, 8);
  const uint32_t row_tiles = count_of(arguments.rows, place.row + warp_row, 16);
  const uint32_t tiles = (arguments.layout.columns + kTileColumns - 1) / kTileColumns;
  if (uses_levels(arguments.format)) fill_levels(arguments.format != Format::kMxfp4);
  for (uint32_t i = threadIdx.x; i < kRows; i += kTileThreads) memory.exponents[i] = kLeastExponent;
  if (threadIdx.x < 3) memory.changed[threadIdx.x] = 0;
  __syncthreads();
  float sums[kRowTiles][kTokenTiles][4] = {};
  // Each step prepares a tile and multiplies the one before.
  for (uint32_t step = 0; step <= tiles; ++step) {
    wait_for_copies<0>();
    __syncthreads();
    if (step < tiles) copy_inputs(arguments, place.token, step, memory.inputs[step % 2]);
    if (threadIdx.x == 0) memory.changed[(step + 1) % 3] = 0;
    if (step > 0) multiply_step(memory, step - 1, warp_row, part, row_tiles, token_tiles, sums);
    if (step == tiles) break;
    with_codec(arguments.format, [&](auto codec) { decode_rows<decltype(codec)>(arguments, place.row, step, memory); });
  }

  // The second parts' sums go to the warps that have the first ones of the same rows, where weights were.
  float* const others = reinterpret_cast<float*>(memory.weights) + (warp % kRowWarps * kRowTiles * kTokenTiles * 4) * kWarpThreads + lane;
  static_assert(sizeof memory.weights >= kRowWarps * sizeof sums * kWarpThreads);
  __syncthreads();
#pragma unroll
  for (uint32_t m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (uint32_t n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        if (part == 1) others[((m * kTokenTiles + n) * 4 + i) * kWarpThreads] = sums[m][n][i];
      }
    }
  }
  __syncthreads();
  if (part == 1) return;
#pragma unroll
  for (uint32_t m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (uint32_t n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t own_row = warp_row + 16 * m + group + i / 2 * 8, row = place.row + own_row;
        const uint32_t token = place.token + 8 * n + 2 * pair + i % 2;
        if (row >= arguments.rows || token >= arguments.tokens) continue;
        const float other = others[((m * kTokenTiles + n) * 4 + i) * kWarpThreads];
        const float sum = (sums[m][n][i] + other) * power(memory.exponents[own_row] - kTopExponent) * arguments.factors[token];
        write_sum(arguments, token, row, sum);
      }
    }
  }
}

}  // namespace layerstream::cuda
