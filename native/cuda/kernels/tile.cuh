// Tiles of 64 columns for products of many tokens: rows of any format are decoded on their way to shared memory.
#pragma once

#include "codecs.cuh"
#include "product.cuh"

namespace layerstream::cuda {

constexpr uint32_t kTileColumns = 64, kTileThreads = 256;

// The block's first row and token; blocks of one row tile follow one another, so that they find its weights in the cache.
struct TilePlace {
  uint32_t row, token;
};
__device__ __forceinline__ TilePlace tile_place(const MatmulArguments& arguments, uint32_t tile_rows, uint32_t tile_tokens) {
  const uint32_t token_tiles = (arguments.tokens + tile_tokens - 1) / tile_tokens;
  return {blockIdx.x / token_tiles * tile_rows, blockIdx.x % token_tiles * tile_tokens};
}

// Weights of an item: quads of a row, in a tile.
template <class Codec>
struct DecodedItem {
  uint32_t row;  // of the tile
  uint32_t columns[Codec::kItemQuads];  // of the tile
  float weights[Codec::kItemQuads][4];
};

// Item `index` of a tile of rows; rows and columns that do not exist are zeros.
template <class Codec>
__device__ __forceinline__ DecodedItem<Codec> decode_item(const MatmulArguments& arguments, uint32_t first_row, uint32_t tile, uint32_t index) {
  constexpr uint32_t kItems = 16 / Codec::kItemQuads;
  const RowLayout& layout = arguments.layout;
  const Item item = Codec::item(tile, index % kItems);
  DecodedItem<Codec> decoded;
  decoded.row = index / kItems;
  const uint32_t row = first_row + decoded.row;
  const bool exists = row < arguments.rows && item.unit < units_of<Codec>(layout.columns);
  typename Codec::Unit unit = {};
  if (exists) unit = Codec::load(layout, arguments.weight + row * arguments.row_bytes, item.unit);
  if constexpr (Codec::kItemQuads < Codec::kUnit / 4) {
    if (item.first_quad > 0) Codec::skip(unit);
  }
#pragma unroll
  for (uint32_t i = 0; i < Codec::kItemQuads; ++i) {
    decoded.columns[i] = Codec::column(item.unit, item.first_quad + i) - tile * kTileColumns;
    float weights[4] = {};
    if (exists) Codec::decode(unit, i, weights);
    const float scale = Codec::scale(unit, i);
#pragma unroll
    for (uint32_t c = 0; c < 4; ++c) decoded.weights[i][c] = weights[c] * scale;
  }
  return decoded;
}

}  // namespace layerstream::cuda
