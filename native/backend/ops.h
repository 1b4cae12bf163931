// The operations that every device executes. Activations are float32, one row a token; `stride` counts floats from one
// token's row to the next. Vectors (norm weights, biases) are float32. All ranges are memory of the executing device.
#pragma once

#include <cstdint>
#include <variant>

#include "activation.h"
#include "format.h"
#include "kv_format.h"

namespace layerstream {

// Memory of a device. Each backend derives its own from it, under a name of its own.
struct Buffer {};

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

// Groups of `width` floats of a token are normalised apart; a token has `groups` of them.
//   output = (input - mean) / sqrt(variance + epsilon) * weight + bias     if centered (LayerNorm)
//   output = input / sqrt(mean of squares + epsilon) * weight + bias       otherwise (RMSNorm)
// In place allowed unless it accumulates.
struct NormOp {
  Range input, output;
  Range weight, bias;  // of `width` floats, or of groups * width; a null buffer stands for 1 and 0
  uint32_t tokens, groups, width;
  uint32_t input_stride, output_stride;
  float epsilon;
  bool centered;
  bool group_weights;  // every group has a weight and a bias of its own
  bool accumulate;     // output += result
};

// How activations enter a product: kExact as float32; kFast as a device likes best, rounded to no less than 13 bits of the
// largest of a group of columns. Weights of less than 32 bits may be rounded to 11 bits each.
enum class Precision : uint8_t { kExact, kFast };

// value = (input[t] . weight[r] * row_scale[r] + bias[r]) * scale for `rows` rows of a matrix. The value depends on the
// row, the token, `precision` and `many_tokens` only, whatever `rows` and `tokens` are.
struct MatmulOp {
  Format format;
  uint32_t block;
  Range weight;
  uint64_t row_bytes;
  uint32_t rows, columns, tokens;
  Range input, output;
  Range bias, row_scale;  // null buffers stand for 0 and 1
  uint32_t input_stride, output_stride;
  bool accumulate;        // output[t][r] += value instead of output[t][r] = value
  float scale = 1.0f;
  Precision precision = Precision::kExact;
  bool input_kept = false;   // the op before on this stream was a product with this input, of as many tokens, and left it as it was
  bool many_tokens = false;  // part of a request of many tokens, although there may be one here
};

// Rotates pairs of elements of each head in place: elements offset ... offset + rotary_dim - 1 of the head.
// cosine and sine: [tokens, rotary_dim / 2]
struct RopeOp {
  Range target, cosine, sine;
  uint32_t tokens, stride, heads, head_dim, rotary_dim;
  uint32_t offset;
  bool interleaved;  // pair i is (2i, 2i + 1), else (i, i + rotary_dim / 2)
};

struct AppendedTokens {
  uint32_t first, count;
};

// Appends the keys and values of `tokens` tokens to a layer's paged cache, then causal grouped-query attention: head h of
// a token is read at h * head_dim of its query, and its result written at h * value_dim of its output.
//
// The keys of page p and KV head h are the block (kv_format.h) at p * page_bytes + h * its size in key_cache; the values
// likewise in value_cache. With values_in_keys (multi-head latent attention) there are no values but the first value_dim
// elements of each key.
//
// score = query . key * scale, for a query at position p times log(p + 1) / log(logn_length) where p + 1 > logn_length;
// then soft_cap * tanh(score / soft_cap); then + slope of the head * (position of the key - p).
//
// With a `state`, the op does so for the positions [part_begin, part_end): appends those of its tokens that are there, and has
// each query attend to what it sees of them. Ops for all parts that any token sees, in ascending order, leave in the output the
// bits that one op for all positions would; `state` goes from each to the next and says nothing else. The first and the last
// of them know themselves (begins, ends). What is not in the part is not read: not the cache, not its entries of `pages`.
struct AttentionOp {
  Range query, key, value;
  Range output;  // may be the query if value_dim is head_dim
  uint32_t query_stride, key_stride, value_stride, output_stride;
  Range key_cache, value_cache;
  KvFormat kv_format;
  uint64_t page_bytes;  // from one page of the cache to the next
  Range pages;  // uint32 page of positions [i * page_positions, (i + 1) * page_positions)
  uint32_t page_positions;
  uint32_t tokens, first_position;
  uint32_t heads, kv_heads, head_dim, value_dim;
  uint32_t window;  // 0: unlimited
  float scale;
  bool values_in_keys;
  float soft_cap;        // 0: none
  uint32_t logn_length;  // 0: none
  Range sinks;           // `heads` floats: a score of no key, which takes its share of the softmax; or a null buffer
  Range slopes;          // `heads` floats (ALiBi), or a null buffer
  Range state;           // attention_state_floats(value_dim) floats for each head of each token; or a null buffer: all positions
  uint32_t part_begin = 0, part_end = UINT32_MAX;  // multiples of kAttentionPartPositions, unless no token comes behind
  bool many_tokens = false;  // as in MatmulOp: of nothing else that tokens have in common may the result depend

  uint32_t end_position() const { return first_position + tokens; }
  // What its tokens see begins here.
  uint32_t begin_position() const { return window != 0 && first_position + 1 > window ? first_position + 1 - window : 0; }
  bool begins() const { return part_begin <= begin_position(); }
  bool ends() const { return part_end >= end_position(); }
  // Of its tokens, those whose keys and values come to lie in the part.
  AppendedTokens appended() const {
    const uint32_t begin = part_begin > first_position ? part_begin : first_position, end = part_end < end_position() ? part_end : end_position();
    return {begin - first_position, end > begin ? end - begin : 0};
  }
};

// Kernels take positions in blocks and splits at fixed places, which divide this.
constexpr uint32_t kAttentionPartPositions = 128;

// The largest score so far, the weights' total relative to it, and the weighted sums of values.
constexpr uint64_t attention_state_floats(uint32_t value_dim) { return uint64_t{value_dim} + 2; }

// gate = activation(gate) * up
struct ActivationOp {
  Range gate, up;  // a null buffer stands for an `up` of 1, except in kClampedSwiglu
  uint32_t tokens, width, gate_stride, up_stride;
  Activation activation;
  float alpha, limit;
};

// target[t] *= sigmoid(factor[t][0])
struct ScaleTokensOp {
  Range target, factor;
  uint32_t tokens, width, target_stride, factor_stride;
};

// target = cap * tanh(target / cap)
struct SoftCapOp {
  Range target;
  uint32_t tokens, width, stride;
  float cap;
};

// output[i] = input[rows[i]] for `count` rows (uint32)
struct GatherRowsOp {
  Range input, output, rows;
  uint32_t count, width, input_stride, output_stride;
};

// output[rows[i]] += weights[i] * input[i] for `count` rows (uint32, all different)
struct ScatterAddOp {
  Range input, output, rows, weights;
  uint32_t count, width, input_stride, output_stride;
};

// output[t][c] = input[t][order[c]] (uint32); never in place
struct PermuteOp {
  Range input, output, order;
  uint32_t tokens, width, input_stride, output_stride;
};

using Op = std::variant<EmbedOp, NormOp, MatmulOp, RopeOp, AttentionOp, ActivationOp, ScaleTokensOp, SoftCapOp, GatherRowsOp,
                        ScatterAddOp, PermuteOp>;

}  // namespace layerstream
