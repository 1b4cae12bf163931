// Every op against float64, over awkward shapes and strides: on the executors of every instruction set, whose results
// may not depend on the number of threads, and on every device.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "op_problem.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

Problem make_embed() {
  Problem problem("embed");
  const uint32_t columns = uniform(1, 200);
  const float scale = coin() ? 1.0f : 7.5f;
  const Region row = problem.add(1, columns, columns), output = problem.add(1, columns, columns);
  for (uint32_t i = 0; i < columns; i++) problem.expect(output, i, problem.value(row, i) * scale);
  problem.op = [=](Buffer* buffer) { return EmbedOp{Format::kF32, 0, columns, scale, row.in(buffer), output.in(buffer)}; };
  return problem;
}

Problem make_norm(uint32_t tokens, uint32_t groups, uint32_t width) {
  Problem problem("norm");
  const uint32_t size = groups * width, input_stride = size + uniform(0, 5), output_stride = size + uniform(0, 5);
  const bool centered = coin(), group_weights = coin(), accumulate = coin();
  const Region input = problem.add(tokens, size, input_stride);
  const Region output = problem.add(tokens, size, output_stride);
  const Region weight = problem.add_maybe(group_weights ? size : width), bias = problem.add_maybe(group_weights ? size : width);
  const float epsilon = 1e-3f;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t g = 0; g < groups; g++) {
      const size_t first = size_t{t} * input_stride + g * width;
      double mean = 0, squares = 0;
      for (uint32_t i = 0; i < width && centered; i++) mean += problem.value(input, first + i) / width;
      for (uint32_t i = 0; i < width; i++) squares += std::pow(problem.value(input, first + i) - mean, 2) / width;
      for (uint32_t i = 0; i < width; i++) {
        const size_t parameter = group_weights ? g * width + i : i, at = size_t{t} * output_stride + g * width + i;
        double value = (problem.value(input, first + i) - mean) / std::sqrt(squares + epsilon);
        if (weight.count > 0) value *= problem.value(weight, parameter);
        if (bias.count > 0) value += problem.value(bias, parameter);
        problem.expect(output, at, accumulate ? problem.value(output, at) + value : value);
      }
    }
  }
  problem.tolerance = 1e-5;
  problem.op = [=](Buffer* buffer) {
    NormOp op{};
    op.input = input.in(buffer);
    op.output = output.in(buffer);
    op.weight = weight.in(buffer);
    op.bias = bias.in(buffer);
    op.tokens = tokens;
    op.groups = groups;
    op.width = width;
    op.input_stride = input_stride;
    op.output_stride = output_stride;
    op.epsilon = epsilon;
    op.centered = centered;
    op.group_weights = group_weights;
    op.accumulate = accumulate;
    return op;
  };
  return problem;
}

Problem make_matmul(uint32_t tokens, uint32_t rows, uint32_t columns) {
  Problem problem("matmul");
  const uint32_t input_stride = columns + uniform(0, 5), output_stride = rows + uniform(0, 5);
  const bool accumulate = coin();
  const float scale = coin() ? 1.0f : -0.3f;
  const Region weight = problem.add(rows, columns, columns);
  const Region input = problem.add(tokens, columns, input_stride), output = problem.add(tokens, rows, output_stride);
  const Region bias = problem.add_maybe(rows), row_scale = problem.add_maybe(rows);
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t r = 0; r < rows; r++) {
      const size_t at = size_t{t} * output_stride + r;
      double value = 0;
      for (uint32_t c = 0; c < columns; c++) {
        value += problem.value(weight, size_t{r} * columns + c) * problem.value(input, size_t{t} * input_stride + c);
      }
      if (row_scale.count > 0) value *= problem.value(row_scale, r);
      if (bias.count > 0) value += problem.value(bias, r);
      problem.expect(output, at, (accumulate ? problem.value(output, at) : 0) + value * scale);
    }
  }
  problem.tolerance = 2e-5;
  problem.op = [=](Buffer* buffer) {
    MatmulOp op{};
    op.format = Format::kF32;
    op.weight = weight.in(buffer);
    op.row_bytes = columns * sizeof(float);
    op.rows = rows;
    op.columns = columns;
    op.tokens = tokens;
    op.input = input.in(buffer);
    op.output = output.in(buffer);
    op.bias = bias.in(buffer);
    op.row_scale = row_scale.in(buffer);
    op.input_stride = input_stride;
    op.output_stride = output_stride;
    op.accumulate = accumulate;
    op.scale = scale;
    return op;
  };
  return problem;
}

Problem make_rope(uint32_t tokens) {
  Problem problem("rope");
  const uint32_t heads = uniform(1, 9), half = uniform(1, 40), offset = uniform(0, 20);
  const uint32_t head_dim = 2 * half + offset + uniform(0, 3), stride = heads * head_dim + uniform(0, 5);
  const bool interleaved = coin();
  const Region target = problem.add(tokens, heads * head_dim, stride);
  const Region cosine = problem.add(tokens, half, half), sine = problem.add(tokens, half, half);
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t h = 0; h < heads; h++) {
      for (uint32_t i = 0; i < half; i++) {
        const size_t start = size_t{t} * stride + h * head_dim + offset;
        const size_t first = start + (interleaved ? 2 * i : i), second = start + (interleaved ? 2 * i + 1 : half + i);
        const double a = problem.value(target, first), b = problem.value(target, second);
        const double c = problem.value(cosine, t * half + i), s = problem.value(sine, t * half + i);
        problem.expect(target, first, a * c - b * s);
        problem.expect(target, second, a * s + b * c);
      }
    }
  }
  problem.op = [=](Buffer* buffer) {
    return RopeOp{target.in(buffer), cosine.in(buffer), sine.in(buffer), tokens, stride, heads, head_dim, 2 * half,
                  offset, interleaved};
  };
  return problem;
}

// Attention with the simplest options: what the options do is attention_test's part. Here, the cache, the strides, and
// how the work is divided.
Problem make_attention(uint32_t tokens, uint32_t heads, uint32_t kv_heads, bool values_in_keys) {
  Problem problem("attention");
  const uint32_t value_dim = uniform(1, 40), head_dim = values_in_keys ? value_dim + uniform(0, 9) : uniform(1, 40);
  const uint32_t first_position = uniform(0, 90), page_positions = uniform(1, 30), positions = first_position + tokens;
  const uint32_t page_count = (positions + page_positions - 1) / page_positions + 1;
  const uint32_t query_stride = heads * head_dim + uniform(0, 5), output_stride = heads * value_dim + uniform(0, 5);
  const uint32_t key_stride = kv_heads * head_dim + uniform(0, 5), value_stride = kv_heads * value_dim + uniform(0, 5);
  const float scale = 0.2f;
  std::vector<uint32_t> page_table(page_count);
  std::iota(page_table.begin(), page_table.end(), 0u);
  std::shuffle(page_table.begin(), page_table.end(), generator);
  const size_t block_positions = size_t{kv_heads} * page_positions;
  const size_t page_floats = block_positions * (head_dim + (values_in_keys ? 0 : value_dim));
  const size_t page_stride = page_floats + uniform(0, 5), values_offset = values_in_keys ? 0 : block_positions * head_dim;
  const Region pages = problem.add_words(page_table), slopes = problem.add_maybe(heads), sinks = problem.add_maybe(heads);
  const Region query = problem.add(tokens, heads * head_dim, query_stride);
  const Region output = problem.add(tokens, heads * value_dim, output_stride);
  const Region key = problem.add(tokens, kv_heads * head_dim, key_stride), cache = problem.add(page_count, page_floats, page_stride);
  const Region value = values_in_keys ? key : problem.add(tokens, kv_heads * value_dim, value_stride);
  // First float of a key (offset 0) or a value in the cache.
  const auto place = [&](size_t offset, uint32_t dim, uint32_t head, uint32_t position) {
    return page_table[position / page_positions] * page_stride + offset + (head * page_positions + position % page_positions) * dim;
  };
  const auto append = [&](const Region& source, uint32_t stride, size_t offset, uint32_t dim) {
    for (uint32_t t = 0; t < tokens; t++) {
      for (uint32_t i = 0; i < kv_heads * dim; i++) {
        const size_t at = place(offset, dim, i / dim, first_position + t) + i % dim;
        problem.expect(cache, at, problem.value(source, size_t{t} * stride + i));
      }
    }
  };
  append(key, key_stride, 0, head_dim);
  if (!values_in_keys) append(value, value_stride, values_offset, value_dim);
  // A place of a cache as it is after the append.
  const auto cached = [&](size_t index) {
    const double appended = problem.expected[cache.first + index];
    return std::isnan(appended) ? problem.value(cache, index) : appended;
  };
  const uint32_t cached_dim = values_in_keys ? head_dim : value_dim;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t h = 0; h < heads; h++) {
      const uint32_t kv_head = h / (heads / kv_heads), own = first_position + t;
      double total = sinks.count > 0 ? std::exp(problem.value(sinks, h)) : 0;
      std::vector<double> sums(value_dim);
      for (uint32_t position = 0; position <= own; position++) {
        double score = 0;
        for (uint32_t d = 0; d < head_dim; d++) {
          score += problem.value(query, size_t{t} * query_stride + h * head_dim + d) * cached(place(0, head_dim, kv_head, position) + d);
        }
        score *= scale;
        if (slopes.count > 0) score += problem.value(slopes, h) * (static_cast<double>(position) - own);
        total += std::exp(score);
        const size_t value_place = place(values_offset, cached_dim, kv_head, position);
        for (uint32_t d = 0; d < value_dim; d++) sums[d] += std::exp(score) * cached(value_place + d);
      }
      const size_t first = size_t{t} * output_stride + h * value_dim;
      for (uint32_t d = 0; d < value_dim; d++) problem.expect(output, first + d, sums[d] / total);
    }
  }
  problem.tolerance = 5e-5;
  problem.op = [=](Buffer* buffer) {
    AttentionOp op{};
    op.query = query.in(buffer);
    op.key = key.in(buffer);
    if (!values_in_keys) op.value = value.in(buffer);
    op.output = output.in(buffer);
    op.query_stride = query_stride;
    op.key_stride = key_stride;
    op.value_stride = value_stride;
    op.output_stride = output_stride;
    op.key_cache = cache.in(buffer);
    if (!values_in_keys) op.value_cache = op.key_cache.at(values_offset * sizeof(float), op.key_cache.size - values_offset * sizeof(float));
    op.kv_format = KvFormat::kF32;
    op.page_bytes = page_stride * sizeof(float);
    op.pages = pages.in(buffer);
    op.page_positions = page_positions;
    op.tokens = tokens;
    op.first_position = first_position;
    op.heads = heads;
    op.kv_heads = kv_heads;
    op.head_dim = head_dim;
    op.value_dim = value_dim;
    op.scale = scale;
    op.values_in_keys = values_in_keys;
    op.sinks = sinks.in(buffer);
    op.slopes = slopes.in(buffer);
    return op;
  };
  return problem;
}

Problem make_activation(uint32_t tokens, uint32_t width) {
  Problem problem("activation");
  const uint32_t gate_stride = width + uniform(0, 5), up_stride = width + uniform(0, 5);
  const Region gate = problem.add(tokens, width, gate_stride);
  const bool gated = coin();
  const Region up = gated ? problem.add(tokens, width, up_stride) : Region{};
  const Activation activation = !gated || coin() ? Activation::kGelu : Activation::kClampedSwiglu;
  const float alpha = 1.7f, limit = 0.8f;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t i = 0; i < width; i++) {
      const double x = problem.value(gate, size_t{t} * gate_stride + i);
      const double y = gated ? problem.value(up, size_t{t} * up_stride + i) : 1;
      const double g = std::min(x, double{limit}), u = std::clamp(y, -double{limit}, double{limit});
      const double gelu = x * std::erfc(-x * std::sqrt(0.5)) / 2 * y, swiglu = g / (1 + std::exp(-alpha * g)) * (u + 1);
      problem.expect(gate, size_t{t} * gate_stride + i, activation == Activation::kGelu ? gelu : swiglu);
    }
  }
  problem.op = [=](Buffer* buffer) {
    return ActivationOp{gate.in(buffer), up.in(buffer), tokens, width, gate_stride, up_stride, activation, alpha, limit};
  };
  return problem;
}

Problem make_scale_tokens(uint32_t tokens, uint32_t width) {
  Problem problem("scaleTokens");
  const uint32_t target_stride = width + uniform(0, 5), factor_stride = uniform(1, 5);
  const Region target = problem.add(tokens, width, target_stride), factor = problem.add(tokens, 1, factor_stride);
  for (uint32_t t = 0; t < tokens; t++) {
    const double sigmoid = 1 / (1 + std::exp(-problem.value(factor, t * factor_stride)));
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = size_t{t} * target_stride + i;
      problem.expect(target, at, problem.value(target, at) * sigmoid);
    }
  }
  problem.op = [=](Buffer* buffer) {
    return ScaleTokensOp{target.in(buffer), factor.in(buffer), tokens, width, target_stride, factor_stride};
  };
  return problem;
}

Problem make_soft_cap(uint32_t tokens, uint32_t width) {
  Problem problem("softCap");
  const uint32_t stride = width + uniform(0, 5);
  const Region target = problem.add(tokens, width, stride);
  const float cap = 0.9f;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = size_t{t} * stride + i;
      problem.expect(target, at, cap * std::tanh(problem.value(target, at) / cap));
    }
  }
  problem.op = [=](Buffer* buffer) { return SoftCapOp{target.in(buffer), tokens, width, stride, cap}; };
  return problem;
}

// `count` rows of `all`, in any order.
std::vector<uint32_t> some_rows(uint32_t count, uint32_t all) {
  std::vector<uint32_t> rows(all);
  std::iota(rows.begin(), rows.end(), 0u);
  std::shuffle(rows.begin(), rows.end(), generator);
  rows.resize(count);
  return rows;
}

Problem make_gather(uint32_t count, uint32_t width) {
  Problem problem("gatherRows");
  const uint32_t input_stride = width + uniform(0, 5), output_stride = width + uniform(0, 5), all = count + uniform(0, 9);
  std::vector<uint32_t> chosen = some_rows(count, all);
  chosen.back() = chosen.front();  // the same row twice
  const Region rows = problem.add_words(chosen);
  const Region input = problem.add(all, width, input_stride), output = problem.add(count, width, output_stride);
  for (uint32_t i = 0; i < count; i++) {
    for (uint32_t c = 0; c < width; c++) {
      problem.expect(output, size_t{i} * output_stride + c, problem.value(input, size_t{chosen[i]} * input_stride + c));
    }
  }
  problem.op = [=](Buffer* buffer) {
    return GatherRowsOp{input.in(buffer), output.in(buffer), rows.in(buffer), count, width, input_stride, output_stride};
  };
  return problem;
}

Problem make_scatter(uint32_t count, uint32_t width) {
  Problem problem("scatterAdd");
  const uint32_t input_stride = width + uniform(0, 5), output_stride = width + uniform(0, 5), all = count + uniform(0, 9);
  const std::vector<uint32_t> chosen = some_rows(count, all);
  const Region rows = problem.add_words(chosen), weights = problem.add(1, count, count);
  const Region input = problem.add(count, width, input_stride), output = problem.add(all, width, output_stride);
  for (uint32_t i = 0; i < count; i++) {
    for (uint32_t c = 0; c < width; c++) {
      const size_t at = size_t{chosen[i]} * output_stride + c;
      const double added = problem.value(weights, i) * problem.value(input, size_t{i} * input_stride + c);
      problem.expect(output, at, problem.value(output, at) + added);
    }
  }
  problem.op = [=](Buffer* buffer) {
    return ScatterAddOp{input.in(buffer), output.in(buffer), rows.in(buffer), weights.in(buffer), count, width,
                        input_stride, output_stride};
  };
  return problem;
}

Problem make_permute(uint32_t tokens, uint32_t width) {
  Problem problem("permute");
  const uint32_t input_stride = width + uniform(0, 5), output_stride = width + uniform(0, 5);
  const std::vector<uint32_t> order = some_rows(width, width);
  const Region words = problem.add_words(order);
  const Region input = problem.add(tokens, width, input_stride), output = problem.add(tokens, width, output_stride);
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t c = 0; c < width; c++) {
      problem.expect(output, size_t{t} * output_stride + c, problem.value(input, size_t{t} * input_stride + order[c]));
    }
  }
  problem.op = [=](Buffer* buffer) {
    return PermuteOp{input.in(buffer), output.in(buffer), words.in(buffer), tokens, width, input_stride, output_stride};
  };
  return problem;
}

// Small ones, and some that are worth dividing over threads.
std::vector<Problem> make_problems() {
  std::vector<Problem> problems;
  for (uint32_t round = 0; round < 12; round++) {
    const uint32_t tokens = round == 0 ? 1 : uniform(1, 40);
    const uint32_t width = round % 3 == 0 ? uniform(1, 30) : uniform(500, 1500);
    problems.push_back(make_embed());
    problems.push_back(make_norm(tokens, uniform(1, 4), width));
    problems.push_back(make_matmul(tokens, uniform(1, 300), uniform(1, 300)));
    problems.push_back(make_rope(tokens));
    const uint32_t kv_heads = uniform(1, 3);
    const uint32_t attention_tokens = round % 2 == 0 ? 1 : uniform(1, 70);
    problems.push_back(make_attention(attention_tokens, kv_heads * uniform(1, 20), kv_heads, round % 4 < 2));
    problems.push_back(make_activation(tokens, width));
    problems.push_back(make_scale_tokens(tokens, width));
    problems.push_back(make_soft_cap(tokens, width));
    problems.push_back(make_gather(tokens, width));
    problems.push_back(make_scatter(tokens, width));
    problems.push_back(make_permute(tokens, width));
  }
  return problems;
}

}  // namespace

int main() {
  const std::vector<Problem> problems = make_problems();
  const cpu::KernelTable* const tables[] = {&cpu::scalar_kernels(), cpu::avx2_kernels(), cpu::avx512_kernels(),
                                            cpu::neon_kernels()};
  for (const cpu::KernelTable* kernels : tables) {
    if (kernels == nullptr) continue;
    cpu::Executor alone(*kernels, 1), together(*kernels, 3);
    for (const Problem& problem : problems) {
      const std::vector<float> result = execute(problem, alone);
      verify(problem, result, kernels->name);
      const bool same = std::memcmp(execute(problem, together).data(), result.data(), result.size() * sizeof(float)) == 0;
      check(same, kernels->name, "depends on the number of threads", static_cast<size_t>(&problem - problems.data()));
    }
  }
  for (const Backend& backend : backends()) {
    const std::unique_ptr<Device> device = backend.open({2});
    if (!device) continue;
    for (const Problem& problem : problems) verify(problem, launch(problem, *device), backend.name);
  }
  printf("ops_test: %d checks passed\n", checks);
  return 0;
}
