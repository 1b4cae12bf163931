// Problems for the ops without weights: awkward shapes and strides, against float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "op_problem.h"
#include "reference_ops.h"

namespace layerstream::test {

inline Problem make_norm(uint32_t tokens, uint32_t groups, uint32_t width) {
  Problem problem("norm");
  problem.tolerance = 1e-5;
  const uint32_t size = groups * width, input_stride = size + uniform(0, 5);
  const bool centered = coin(), group_weights = coin(), accumulate = coin(), in_place = !accumulate && coin();
  const uint32_t output_stride = in_place ? input_stride : size + uniform(0, 5);
  const Region input = problem.add(tokens, size, input_stride);
  const Region output = in_place ? input : problem.add(tokens, size, output_stride);
  const Region weight = problem.add_maybe(group_weights ? size : width), bias = problem.add_maybe(group_weights ? size : width);
  const float epsilon = 1e-3f;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t g = 0; g < groups; g++) {
      const float* source = &problem.memory[input.first + size_t{t} * input_stride + g * width];
      const std::vector<double> normalized = reference::normalize(source, width, epsilon, centered);
      for (uint32_t i = 0; i < width; i++) {
        const size_t parameter = group_weights ? g * width + i : i, at = size_t{t} * output_stride + g * width + i;
        double value = normalized[i];
        if (weight.count > 0) value *= problem.value(weight, parameter);
        if (bias.count > 0) value += problem.value(bias, parameter);
        problem.expect(output, at, accumulate ? problem.value(output, at) + value : value);
      }
    }
  }
  problem.ops = [=](Buffer* buffer) {
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
    return std::vector<Op>{op};
  };
  return problem;
}

inline Problem make_rope(uint32_t tokens) {
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
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{RopeOp{target.in(buffer), cosine.in(buffer), sine.in(buffer), tokens, stride, heads, head_dim, 2 * half,
                  offset, interleaved}};
  };
  return problem;
}

inline Problem make_activation(Activation activation, bool gated, uint32_t tokens, uint32_t width) {
  Problem problem("activation " + std::to_string(static_cast<int>(activation)));
  const uint32_t gate_stride = width + uniform(0, 5), up_stride = width + uniform(0, 5);
  const Region gate = problem.add(tokens, width, gate_stride);
  const Region up = gated ? problem.add(tokens, width, up_stride) : Region{};
  const float alpha = 1.7f, limit = 0.8f;
  // Tails, and a gate whose exponential is more than float32 holds.
  for (const float extreme : {-90.0f, 90.0f, -20.0f}) problem.put(gate, uniform(0, width - 1), extreme);
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = size_t{t} * gate_stride + i;
      const double factor = gated ? problem.value(up, size_t{t} * up_stride + i) : 1;
      problem.expect(gate, at, reference::activate(activation, problem.value(gate, at), factor, alpha, limit));
    }
  }
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{ActivationOp{gate.in(buffer), up.in(buffer), tokens, width, gate_stride, up_stride, activation, alpha, limit}};
  };
  return problem;
}

inline Problem make_scale_tokens(uint32_t tokens, uint32_t width) {
  Problem problem("scale tokens");
  const uint32_t target_stride = width + uniform(0, 5), factor_stride = uniform(1, 5);
  const Region target = problem.add(tokens, width, target_stride), factor = problem.add(tokens, 1, factor_stride);
  for (uint32_t t = 0; t < tokens; t++) {
    const double sigmoid = reference::sigmoid(problem.value(factor, t * factor_stride));
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = size_t{t} * target_stride + i;
      problem.expect(target, at, problem.value(target, at) * sigmoid);
    }
  }
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{ScaleTokensOp{target.in(buffer), factor.in(buffer), tokens, width, target_stride, factor_stride}};
  };
  return problem;
}

inline Problem make_soft_cap(uint32_t tokens, uint32_t width) {
  Problem problem("soft cap");
  const uint32_t stride = width + uniform(0, 5);
  const Region target = problem.add(tokens, width, stride);
  const float cap = 0.9f;
  for (uint32_t t = 0; t < tokens; t++) {
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = size_t{t} * stride + i;
      problem.expect(target, at, cap * std::tanh(problem.value(target, at) / cap));
    }
  }
  problem.ops = [=](Buffer* buffer) { return std::vector<Op>{SoftCapOp{target.in(buffer), tokens, width, stride, cap}}; };
  return problem;
}

// `count` rows of `all`, in any order.
inline std::vector<uint32_t> some_rows(uint32_t count, uint32_t all) {
  std::vector<uint32_t> rows(all);
  std::iota(rows.begin(), rows.end(), 0u);
  std::shuffle(rows.begin(), rows.end(), generator);
  rows.resize(count);
  return rows;
}

inline Problem make_gather(uint32_t count, uint32_t width) {
  Problem problem("gather rows");
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
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{GatherRowsOp{input.in(buffer), output.in(buffer), rows.in(buffer), count, width, input_stride, output_stride}};
  };
  return problem;
}

inline Problem make_scatter(uint32_t count, uint32_t width) {
  Problem problem("scatter add");
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
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{ScatterAddOp{input.in(buffer), output.in(buffer), rows.in(buffer), weights.in(buffer), count, width,
                        input_stride, output_stride}};
  };
  return problem;
}

inline Problem make_permute(uint32_t tokens, uint32_t width) {
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
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{PermuteOp{input.in(buffer), output.in(buffer), words.in(buffer), tokens, width, input_stride, output_stride}};
  };
  return problem;
}

// Small ones, and some that are worth dividing over threads.
inline std::vector<Problem> make_op_problems() {
  std::vector<Problem> problems;
  for (uint32_t round = 0; round < 12; round++) {
    const uint32_t tokens = round == 0 ? 1 : uniform(1, 40);
    const uint32_t width = round % 3 == 0 ? uniform(1, 30) : uniform(500, 1500);
    problems.push_back(make_norm(tokens, uniform(1, 4), width));
    problems.push_back(make_rope(tokens));
    for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kClampedSwiglu}) {
      problems.push_back(make_activation(activation, activation == Activation::kClampedSwiglu || round % 2 == 0, tokens, width));
    }
    problems.push_back(make_scale_tokens(tokens, width));
    problems.push_back(make_soft_cap(tokens, width));
    problems.push_back(make_gather(tokens, width));
    problems.push_back(make_scatter(tokens, width));
    problems.push_back(make_permute(tokens, width));
  }
  return problems;
}

}  // namespace layerstream::test
