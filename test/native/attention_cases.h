// Problems for attention, in every format of the KV cache: awkward shapes, every option, against float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "op_problem.h"
#include "reference_ops.h"

namespace layerstream::test {

struct AttentionCase {
  uint32_t heads, kv_heads, head_dim, value_dim, tokens, first_position, page_positions;
  uint32_t window = 0;
  bool values_in_keys = false;
  float soft_cap = 0;
  bool sinks = false, slopes = false;
  uint32_t logn_length = 0;
  bool in_place = false;  // the output is the query
  bool many_tokens = false;
};

// A random key or value whose codes of 8 bits are not a matter of how one divides.
inline std::vector<float> random_vector(uint32_t dim) {
  std::vector<float> vector(dim);
  for (float& value : vector) value = normal();
  vector[uniform(0, dim - 1)] = 4.5f;
  for (float& value : vector) {
    const auto fraction = [&] { return std::abs(std::fmod(std::abs(value) / 4.5 * 127, 1.0) - 0.5); };
    while (fraction() < 1e-3 || std::abs(value) > 4.5f) value = normal();
  }
  return vector;
}

// Where parts of the op's positions end: one to three units each, and the last one at the last position or behind it.
inline std::vector<uint32_t> part_ends(const Problem& problem) {
  const auto op = std::get<AttentionOp>(problem.ops(nullptr)[0]);
  std::vector<uint32_t> ends;
  uint32_t end = op.begin_position() / kAttentionPartPositions * kAttentionPartPositions;
  while (end < op.end_position()) ends.push_back(end += uniform(1, 3) * kAttentionPartPositions);
  if (coin()) ends.back() = op.end_position();
  return ends;
}

inline AttentionOp tokens_of(AttentionOp op, uint32_t first, uint32_t count) {
  const auto cut = [&](Range& range, uint64_t stride) {
    if (range.buffer != nullptr) range = range.at(first * stride * sizeof(float), count * stride * sizeof(float));
  };
  cut(op.query, op.query_stride);
  cut(op.key, op.key_stride);
  cut(op.value, op.value_stride);
  cut(op.output, op.output_stride);
  op.tokens = count;
  op.first_position += first;
  return op;
}

inline Problem make_attention(const AttentionCase& shape, KvFormat format) {
  Problem problem("attention " + std::string(kKvFormatNames[static_cast<size_t>(format)]) + ", heads " + std::to_string(shape.heads) + "/" +
                  std::to_string(shape.kv_heads) + " of " + std::to_string(shape.head_dim) + "/" + std::to_string(shape.value_dim) + ", " +
                  std::to_string(shape.tokens) + " tokens from " + std::to_string(shape.first_position) + ", pages of " +
                  std::to_string(shape.page_positions) + ", window " + std::to_string(shape.window) + ", cap " + std::to_string(shape.soft_cap) +
                  (shape.values_in_keys ? ", values in keys" : "") + (shape.sinks ? ", sinks" : "") + (shape.slopes ? ", slopes" : "") +
                  (shape.many_tokens ? ", part of many" : ""));
  problem.tolerance = 3e-5;
  const uint32_t positions = shape.first_position + shape.tokens;
  const uint32_t page_count = (positions + shape.page_positions - 1) / shape.page_positions + 1;
  std::vector<uint32_t> page_table(page_count);
  std::iota(page_table.begin(), page_table.end(), 0u);
  std::shuffle(page_table.begin(), page_table.end(), generator);
  const uint32_t value_dim = shape.values_in_keys ? 0 : shape.value_dim;
  const uint64_t key_bytes = kv_block_bytes(format, shape.page_positions, shape.head_dim);
  const uint64_t value_bytes = kv_block_bytes(format, shape.page_positions, value_dim);
  const uint64_t values_offset = (shape.kv_heads * key_bytes + 3) / 4 * 4;
  const uint64_t page_bytes = (values_offset + shape.kv_heads * value_bytes + 3) / 4 * 4 + 4 * uniform(0, 5);

  const Region pages = problem.add_words(page_table);
  const Region sinks = shape.sinks ? problem.add(1, shape.heads, shape.heads) : Region{};
  const Region slopes = shape.slopes ? problem.add(1, shape.heads, shape.heads) : Region{};
  const uint32_t query_stride = shape.heads * shape.head_dim + uniform(0, 5);
  const uint32_t output_stride = shape.in_place ? query_stride : shape.heads * shape.value_dim + uniform(0, 5);
  const uint32_t key_stride = shape.kv_heads * shape.head_dim + uniform(0, 5), value_stride = shape.kv_heads * value_dim + uniform(0, 5);
  const Region query = problem.add(shape.tokens, shape.heads * shape.head_dim, query_stride);
  const Region output = shape.in_place ? query : problem.add(shape.tokens, shape.heads * shape.value_dim, output_stride);
  const Region key = problem.add(shape.tokens, 0, key_stride);
  const Region value = value_dim == 0 ? Region{} : problem.add(shape.tokens, 0, value_stride);
  const Region cache = problem.add_bytes(std::vector<uint8_t>(page_count * page_bytes, 0xff));

  // What is cached, before the op or by it: [kv_head][position].
  const auto fill = [&](const Region& source, uint32_t stride, uint64_t offset, uint64_t block_bytes, uint32_t dim) {
    std::vector<std::vector<reference::CachedVector>> cached(shape.kv_heads);
    for (uint32_t head = 0; head < shape.kv_heads; head++) {
      for (uint32_t position = 0; position < positions; position++) {
        const std::vector<float> vector = random_vector(dim);
        const reference::CachedVector& encoded = cached[head].emplace_back(reference::encode(format, vector));
        const uint64_t block = page_table[position / shape.page_positions] * page_bytes + offset + head * block_bytes;
        const uint32_t within = position % shape.page_positions;
        const uint64_t place = block + within * encoded.elements.size();
        const uint64_t scale_place = block + kv_scales_offset(shape.page_positions, dim) + within * sizeof(float);
        if (position < shape.first_position) {
          problem.put_bytes(cache, place, encoded.elements.data(), encoded.elements.size());
          if (format == KvFormat::kQ8) problem.put_bytes(cache, scale_place, &encoded.scale, sizeof encoded.scale);
          continue;
        }
        const size_t row = size_t{position - shape.first_position} * stride + head * dim;
        for (uint32_t d = 0; d < dim; d++) problem.put(source, row + d, vector[d]);
        problem.leave_bytes(cache, place, encoded.elements.data(), encoded.elements.size());
        if (format == KvFormat::kQ8) problem.expect(cache, scale_place / 4, encoded.scale, 1e-6 * encoded.scale);
      }
    }
    return cached;
  };
  const auto keys = fill(key, key_stride, 0, key_bytes, shape.head_dim);
  const auto values = value_dim == 0 ? keys : fill(value, value_stride, values_offset, value_bytes, value_dim);

  const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  for (uint32_t t = 0; t < shape.tokens; t++) {
    for (uint32_t head = 0; head < shape.heads; head++) {
      const uint32_t kv_head = head / (shape.heads / shape.kv_heads);
      const reference::AttentionOptions options = {scale, shape.window, shape.soft_cap, shape.logn_length,
                                                   shape.sinks ? &problem.memory[sinks.first + head] : nullptr,
                                                   shape.slopes ? &problem.memory[slopes.first + head] : nullptr};
      const std::vector<double> result = reference::attend(
          &problem.memory[query.first + size_t{t} * query_stride + head * shape.head_dim], shape.head_dim, shape.value_dim,
          shape.first_position + t, options, [&](uint32_t position) { return keys[kv_head][position].values.data(); },
          [&](uint32_t position) { return values[kv_head][position].values.data(); });
      // Scores are rounded where slopes make them large, and weights with them; no value exceeds 4.5.
      const uint32_t last = shape.first_position + t, span = shape.window == 0 ? last : std::min(last, shape.window);
      const double rounding = shape.slopes ? 4.5 * 0x1p-23 * std::abs(problem.value(slopes, head)) * span : 0;
      for (uint32_t d = 0; d < shape.value_dim; d++) {
        problem.expect(output, size_t{t} * output_stride + head * shape.value_dim + d, result[d],
                       problem.tolerance * (1 + std::abs(result[d])) + rounding);
      }
    }
  }
  problem.ops = [=](Buffer* buffer) {
    AttentionOp op{};
    op.query = query.in(buffer);
    op.key = key.in(buffer);
    op.value = value.in(buffer);
    op.output = output.in(buffer);
    op.query_stride = query_stride;
    op.key_stride = key_stride;
    op.value_stride = value_stride;
    op.output_stride = output_stride;
    op.key_cache = cache.in(buffer);
    if (value_dim > 0) op.value_cache = op.key_cache.at(values_offset, op.key_cache.size - values_offset);
    op.kv_format = format;
    op.page_bytes = page_bytes;
    op.pages = pages.in(buffer);
    op.page_positions = shape.page_positions;
    op.tokens = shape.tokens;
    op.first_position = shape.first_position;
    op.heads = shape.heads;
    op.kv_heads = shape.kv_heads;
    op.head_dim = shape.head_dim;
    op.value_dim = shape.value_dim;
    op.window = shape.window;
    op.scale = scale;
    op.values_in_keys = shape.values_in_keys;
    op.soft_cap = shape.soft_cap;
    op.logn_length = shape.logn_length;
    op.sinks = sinks.in(buffer);
    op.slopes = slopes.in(buffer);
    op.many_tokens = shape.many_tokens;
    return std::vector<Op>{op};
  };
  problem.scratch = problem.add(size_t{shape.tokens} * shape.heads, 0, attention_state_floats(shape.value_dim));
  problem.parts = [ops = problem.ops, state = problem.scratch, ends = part_ends(problem), cut = uniform(1, shape.tokens)](Buffer* buffer) {
    const auto whole = std::get<AttentionOp>(ops(buffer)[0]);
    std::vector<Op> parts;
    for (const auto& [first, end_token] : {std::pair{0u, cut}, std::pair{cut, whole.tokens}}) {
      AttentionOp op = tokens_of(whole, first, end_token - first);
      op.state = state.in(buffer);
      op.part_begin = whole.begin_position() / kAttentionPartPositions * kAttentionPartPositions;
      for (const uint32_t end : ends) {
        op.part_end = end;
        if (op.tokens > 0 && op.part_begin < op.end_position() && op.begin_position() < end) parts.push_back(op);
        op.part_begin = end;
      }
    }
    return parts;
  };
  return problem;
}

inline std::vector<Problem> make_attention_problems() {
  std::vector<AttentionCase> cases = {
      {.heads = 1, .kv_heads = 1, .head_dim = 1, .value_dim = 1, .tokens = 1, .first_position = 0, .page_positions = 1},
      {.heads = 4, .kv_heads = 2, .head_dim = 10, .value_dim = 10, .tokens = 70, .first_position = 5, .page_positions = 7, .in_place = true},
      {.heads = 5, .kv_heads = 1, .head_dim = 80, .value_dim = 80, .tokens = 67, .first_position = 61, .page_positions = 48},
      {.heads = 9, .kv_heads = 3, .head_dim = 96, .value_dim = 96, .tokens = 20, .first_position = 300, .page_positions = 33, .window = 65},
      {.heads = 7, .kv_heads = 1, .head_dim = 128, .value_dim = 128, .tokens = 40, .first_position = 0, .page_positions = 16, .window = 1},
      {.heads = 2, .kv_heads = 2, .head_dim = 256, .value_dim = 256, .tokens = 9, .first_position = 130, .page_positions = 128},
      {.heads = 4, .kv_heads = 1, .head_dim = 128, .value_dim = 128, .tokens = 1, .first_position = 517, .page_positions = 64},
      {.heads = 3, .kv_heads = 3, .head_dim = 31, .value_dim = 17, .tokens = 33, .first_position = 100, .page_positions = 16},
      {.heads = 16, .kv_heads = 1, .head_dim = 576, .value_dim = 512, .tokens = 3, .first_position = 70, .page_positions = 64, .values_in_keys = true},
      {.heads = 6, .kv_heads = 2, .head_dim = 18, .value_dim = 18, .tokens = 41, .first_position = 30, .page_positions = 16, .values_in_keys = true},
  };
  // Several parts: a prompt across their ends, windows that begin in the second, tokens of which some see nothing of the first.
  cases.push_back({.heads = 4, .kv_heads = 2, .head_dim = 24, .value_dim = 24, .tokens = 150, .first_position = 250, .page_positions = 64, .in_place = true});
  cases.push_back({.heads = 3, .kv_heads = 1, .head_dim = 16, .value_dim = 20, .tokens = 140, .first_position = 300, .page_positions = 64, .window = 131,
                   .soft_cap = 2.0f, .sinks = true, .slopes = true, .logn_length = 40});
  cases.push_back({.heads = 4, .kv_heads = 2, .head_dim = 20, .value_dim = 20, .tokens = 1, .first_position = 640, .page_positions = 64, .window = 300, .sinks = true});
  cases.push_back({.heads = 8, .kv_heads = 1, .head_dim = 40, .value_dim = 32, .tokens = 2, .first_position = 511, .page_positions = 64, .values_in_keys = true});
  for (uint32_t option = 0; option < 5; option++) {
    AttentionCase each{.heads = 6, .kv_heads = 2, .head_dim = 18, .value_dim = 24, .tokens = option % 2 == 0 ? 1 : 50u,
                       .first_position = 60, .page_positions = 16};
    if (option == 0 || option == 4) each.soft_cap = 2.0f;
    if (option == 1 || option == 4) each.sinks = true;
    if (option == 2 || option == 4) each.slopes = true;
    if (option == 3 || option == 4) each.logn_length = 40;
    if (option == 4) each.window = 37;
    cases.push_back(each);
  }
  for (int round = 0; round < 5; round++) {
    const uint32_t kv_heads = uniform(1, 3), value_dim = uniform(1, 40);
    const bool values_in_keys = coin();
    AttentionCase each{.heads = kv_heads * uniform(1, 20), .kv_heads = kv_heads, .head_dim = values_in_keys ? value_dim + uniform(0, 9) : uniform(1, 40),
                       .value_dim = value_dim, .tokens = round % 2 == 0 ? 1 : uniform(1, 70), .first_position = uniform(0, 90),
                       .page_positions = uniform(1, 30), .window = coin() ? 0 : uniform(1, 100), .values_in_keys = values_in_keys,
                       .soft_cap = coin() ? 0 : 5.0f, .sinks = coin(), .slopes = coin(), .logn_length = coin() ? 0 : uniform(2, 60)};
    cases.push_back(each);
  }
  std::vector<Problem> problems;
  for (AttentionCase each : cases) {
    for (size_t format = 0; format < kKvFormatCount; format++) {
      each.many_tokens = false;
      problems.push_back(make_attention(each, static_cast<KvFormat>(format)));
      each.many_tokens = true;
      if (each.tokens > 1) problems.push_back(make_attention(each, static_cast<KvFormat>(format)));
    }
  }
  return problems;
}

}  // namespace layerstream::test
