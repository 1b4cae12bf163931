// The operations that every device executes. Activations are float32, one row a token; `stride` counts floats from one
// token's row to the next. Vectors (norm weights, biases) are float32. All ranges are memory of the executing device.
#pragma once

#include <cstdint>
#include <variant>

#include "format.h"

namespace layerstream {

struct Buffer;  // opaque, defined by each backend

// Part of a buffer. Devices without pointer arithmetic need the pair.
struct Range {
  Buffer* buffer = nullptr;
  uint64_t offset = 0;
  uint64_t size = 0;

  Range at(uint64_t delta, uint64_t bytes) const { return {buffer, offset + delta, bytes}; }
};

// output[columns] = row of a weight matrix, as float32, times scale
struct EmbedOp {
  Format format;
  uint32_t block;
  uint32_t columns;
  float scale;
  Range row;
  Range output;
};

// output = input / sqrt(mean(input^2) + epsilon) * weight, over groups of `width` floats. A token has `groups` groups.
struct RmsNormOp {
  Range input, output, weight;
  uint32_t tokens, groups, width;
  uint32_t input_stride, output_stride;
  float epsilon;
};

// output[t][r] (+)= input[t] . weight[r] + bias[r] for `rows` rows of a matrix
struct MatmulOp {
  Format format;
  uint32_t block;
  Range weight;
  uint64_t row_bytes;
  uint32_t rows, columns, tokens;
  Range input, output, bias;  // bias.buffer may be null
  uint32_t input_stride, output_stride;
  bool accumulate;
};

// Rotates heads in place, element i with i + rotary_dim / 2. cosine and sine: [tokens, rotary_dim / 2]
struct RopeOp {
  Range target, cosine, sine;
  uint32_t tokens, stride, heads, head_dim, rotary_dim;
};

// Appends the keys and values of `tokens` tokens to a layer's paged cache, then causal grouped-query attention.
// The result replaces the query. Cache of one layer: [page, kv_head, position in page, head_dim], keys and values alike.
struct AttentionOp {
  Range query, key, value;
  uint32_t query_stride, key_stride, value_stride;
  Range key_cache, value_cache;
  Range pages;  // uint32 page of positions [i * page_positions, (i + 1) * page_positions)
  uint32_t page_positions;
  uint32_t tokens, first_position;
  uint32_t heads, kv_heads, head_dim;
  uint32_t window;  // 0: unlimited
  float scale;
};

// gate = silu(gate) * up
struct GatedActivationOp {
  Range gate, up;
  uint32_t tokens, width, gate_stride, up_stride;
};

using Op = std::variant<EmbedOp, RmsNormOp, MatmulOp, RopeOp, AttentionOp, GatedActivationOp>;

}  // namespace layerstream
