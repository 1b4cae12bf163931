// Attention of every instruction set against float64, and bit-identical results however the work is divided.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"

using namespace layerstream::cpu;

namespace {

int checks = 0;

void check(bool condition, const char* kernels, const char* what, const char* where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "attention_test: %s: %s (%s)\n", kernels, what, where);
  exit(1);
}

struct Case {
  uint32_t heads, kv_heads, head_dim, tokens, first_position, window, page_positions;
};

struct Problem {
  Case shape;
  uint32_t stride;  // of queries and outputs, wider than the heads need
  std::vector<float> query, keys, values;
  std::vector<uint32_t> pages;
  float scale;

  size_t cache_offset(uint32_t head, uint32_t position) const {
    const size_t page = pages[position / shape.page_positions];
    return ((page * shape.kv_heads + head) * shape.page_positions + position % shape.page_positions) * shape.head_dim;
  }
};

// What lies outside the visible keys is NaN, so that any use of it shows.
Problem make_problem(const Case& shape, std::mt19937& random) {
  Problem problem;
  problem.shape = shape;
  problem.stride = shape.heads * shape.head_dim + 3;
  problem.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  std::normal_distribution<float> normal(0.0f, 1.5f);
  problem.query.resize(size_t{shape.tokens} * problem.stride);
  for (float& value : problem.query) value = normal(random);
  const uint32_t positions = shape.first_position + shape.tokens;
  const uint32_t page_count = (positions + shape.page_positions - 1) / shape.page_positions;
  for (uint32_t page = 0; page < page_count; page++) problem.pages.push_back(page_count - 1 - page);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const size_t cache = size_t{page_count} * shape.kv_heads * shape.page_positions * shape.head_dim;
  problem.keys.assign(cache, nan);
  problem.values.assign(cache, nan);
  const uint32_t first_visible =
      shape.window != 0 && shape.first_position + 1 > shape.window ? shape.first_position + 1 - shape.window : 0;
  for (uint32_t head = 0; head < shape.kv_heads; head++) {
    for (uint32_t position = first_visible; position < positions; position++) {
      for (uint32_t d = 0; d < shape.head_dim; d++) {
        problem.keys[problem.cache_offset(head, position) + d] = normal(random);
        problem.values[problem.cache_offset(head, position) + d] = normal(random);
      }
    }
  }
  return problem;
}

AttentionArgs make_args(const Problem& problem, std::vector<float>& output, std::vector<float>& scratch) {
  const Case& shape = problem.shape;
  AttentionArgs args = {};
  args.query = problem.query.data();
  args.query_stride = problem.stride;
  args.output = output.data();
  args.output_stride = problem.stride;
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.scale = problem.scale;
  args.window = shape.window;
  args.first_position = shape.first_position;
  args.pages = problem.pages.data();
  args.page_positions = shape.page_positions;
  args.keys = problem.keys.data();
  args.values = problem.values.data();
  args.scratch = scratch.data();
  return args;
}

// `step` tokens a call, in whatever order; every call gets its own scratch of NaN.
std::vector<float> run(const KernelTable& kernels, const Problem& problem, uint32_t step) {
  std::vector<float> output(problem.query.size(), -7.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (uint32_t kv_head = 0; kv_head < problem.shape.kv_heads; kv_head++) {
    for (uint32_t begin = 0; begin < problem.shape.tokens; begin += step) {
      std::vector<float> scratch(attention_scratch_floats(problem.shape.head_dim, problem.shape.page_positions), nan);
      AttentionArgs args = make_args(problem, output, scratch);
      args.kv_head = kv_head;
      args.token_begin = begin;
      args.token_end = begin + step < problem.shape.tokens ? begin + step : problem.shape.tokens;
      kernels.attention(args);
    }
  }
  return output;
}

std::vector<double> reference(const Problem& problem) {
  const Case& shape = problem.shape;
  std::vector<double> output(problem.query.size());
  for (uint32_t token = 0; token < shape.tokens; token++) {
    const uint32_t end = shape.first_position + token + 1;
    const uint32_t begin = shape.window != 0 && end > shape.window ? end - shape.window : 0;
    for (uint32_t head = 0; head < shape.heads; head++) {
      const uint32_t kv_head = head / (shape.heads / shape.kv_heads);
      const float* query = &problem.query[token * problem.stride + head * shape.head_dim];
      std::vector<double> scores(end - begin);
      double largest = -1e300, total = 0;
      for (uint32_t position = begin; position < end; position++) {
        const float* key = &problem.keys[problem.cache_offset(kv_head, position)];
        double score = 0;
        for (uint32_t d = 0; d < shape.head_dim; d++) score += double{query[d]} * key[d];
        scores[position - begin] = score * problem.scale;
        largest = std::fmax(largest, scores[position - begin]);
      }
      for (double& score : scores) total += score = std::exp(score - largest);
      for (uint32_t position = begin; position < end; position++) {
        const float* value = &problem.values[problem.cache_offset(kv_head, position)];
        for (uint32_t d = 0; d < shape.head_dim; d++) {
          output[token * problem.stride + head * shape.head_dim + d] += scores[position - begin] / total * value[d];
        }
      }
    }
  }
  return output;
}

void test_case(const KernelTable& kernels, const Case& shape, std::mt19937& random) {
  char name[160];
  snprintf(name, sizeof name, "heads %u/%u, head_dim %u, tokens %u from %u, window %u, pages of %u", shape.heads,
           shape.kv_heads, shape.head_dim, shape.tokens, shape.first_position, shape.window, shape.page_positions);
  Problem problem = make_problem(shape, random);
  const std::vector<double> expected = reference(problem);
  const std::vector<float> whole = run(kernels, problem, shape.tokens);
  const uint32_t width = shape.heads * shape.head_dim;
  for (size_t i = 0; i < whole.size(); i++) {
    if (i % problem.stride >= width) {
      check(whole[i] == -7.0f, kernels.name, "writes between rows", name);
    } else {
      check(std::abs(whole[i] - expected[i]) <= 2e-5, kernels.name, "differs from float64", name);
    }
  }
  for (uint32_t step : {1u, 3u, 17u, 40u}) {
    if (step >= shape.tokens) continue;
    const std::vector<float> split = run(kernels, problem, step);
    check(std::memcmp(split.data(), whole.data(), whole.size() * sizeof(float)) == 0, kernels.name,
          "depends on how tokens are divided", name);
  }
  Problem in_place = problem;
  for (uint32_t kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
    std::vector<float> scratch(attention_scratch_floats(shape.head_dim, shape.page_positions));
    AttentionArgs args = make_args(in_place, in_place.query, scratch);
    args.kv_head = kv_head;
    args.token_end = shape.tokens;
    kernels.attention(args);
  }
  for (size_t i = 0; i < whole.size(); i++) {
    if (i % problem.stride >= width) continue;
    check(std::memcmp(&in_place.query[i], &whole[i], sizeof(float)) == 0, kernels.name, "differs in place", name);
  }
}

// Scores that differ by hundreds: the softmax is one key's value, with no overflow on the way.
void test_large_scores(const KernelTable& kernels, std::mt19937& random) {
  Problem problem = make_problem({1, 1, 16, 100, 0, 0, 32}, random);
  for (float& value : problem.query) value *= 100.0f;
  const std::vector<double> expected = reference(problem);
  const std::vector<float> actual = run(kernels, problem, 100);
  for (size_t i = 0; i < actual.size(); i++) {
    if (i % problem.stride >= 16) continue;
    check(std::abs(actual[i] - expected[i]) <= 1e-3, kernels.name, "large scores", "softmax");
  }
}

}  // namespace

int main() {
  const Case cases[] = {
      {1, 1, 1, 1, 0, 0, 1},     {4, 2, 10, 70, 5, 0, 7},    {3, 3, 12, 33, 100, 20, 16}, {8, 2, 64, 150, 0, 0, 64},
      {5, 1, 80, 67, 61, 0, 48}, {9, 3, 96, 20, 300, 65, 33}, {7, 1, 128, 40, 0, 1, 16},    {2, 2, 256, 9, 130, 0, 128},
      {6, 2, 17, 130, 63, 64, 5}, {71, 1, 33, 3, 90, 0, 64},  {4, 1, 128, 1, 517, 0, 64},   {2, 1, 40, 65, 1, 500, 32},
  };
  for (const KernelTable* kernels : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (kernels == nullptr) continue;
    std::mt19937 random(11);
    for (const Case& shape : cases) test_case(*kernels, shape, random);
    test_large_scores(*kernels, random);
  }
  printf("attention_test: %d checks passed\n", checks);
  return 0;
}
