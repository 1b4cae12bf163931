// Attention of every instruction set against float64, and bit-identical results however the work is divided.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "reference_ops.h"

using namespace layerstream;
using namespace layerstream::cpu;
using reference::CachedVector;

namespace {

int checks = 0;

void check(bool condition, const char* kernels, const char* what, const char* where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "attention_test: %s: %s (%s)\n", kernels, what, where);
  exit(1);
}

struct Options {
  uint32_t value_dim;  // 0: head_dim
  bool values_in_keys;
  float soft_cap;
  bool sinks, slopes;
  uint32_t logn_length;
};

struct Case {
  uint32_t heads, kv_heads, head_dim, tokens, first_position, window, page_positions;
  Options options = {};

  uint32_t value_dim() const { return options.value_dim == 0 ? head_dim : options.value_dim; }
};

struct Problem {
  Case shape;
  KvFormat format;
  uint32_t query_stride, output_stride;  // wider than the heads need
  std::vector<float> query, sinks, slopes;
  std::vector<uint32_t> pages;
  std::vector<uint8_t> cache;
  size_t page_bytes, values_offset;
  std::map<std::pair<uint32_t, uint32_t>, std::vector<double>> keys, values;  // of a KV head and position, as cached
  float scale;

  const double* key(uint32_t head, uint32_t position) const { return keys.at({head, position}).data(); }
  const double* value(uint32_t head, uint32_t position) const {
    return shape.options.values_in_keys ? key(head, position) : values.at({head, position}).data();
  }
  void put(size_t offset, uint32_t head, uint32_t position, const CachedVector& vector) {
    const auto dim = static_cast<uint32_t>(vector.values.size());
    const uint32_t within = position % shape.page_positions;
    uint8_t* block = &cache[pages[position / shape.page_positions] * page_bytes + offset +
                            head * kv_block_bytes(format, shape.page_positions, dim)];
    std::memcpy(block + within * vector.elements.size(), vector.elements.data(), vector.elements.size());
    if (format != KvFormat::kQ8) return;
    std::memcpy(block + kv_scales_offset(shape.page_positions, dim) + within * sizeof(float), &vector.scale, sizeof(float));
  }
};

// What lies outside the visible keys is NaN, so that any use of it shows.
Problem make_problem(const Case& shape, KvFormat format, std::mt19937& random) {
  Problem problem;
  problem.shape = shape;
  problem.format = format;
  problem.query_stride = shape.heads * shape.head_dim + 3;
  problem.output_stride = shape.heads * shape.value_dim() + 3;
  problem.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  std::normal_distribution<float> normal(0.0f, 1.5f);
  problem.query.resize(size_t{shape.tokens} * problem.query_stride);
  for (float& value : problem.query) value = normal(random);
  for (uint32_t head = 0; head < shape.heads; head++) {
    problem.sinks.push_back(head % 3 == 2 ? 20.0f : normal(random));
    problem.slopes.push_back(std::exp2(-8.0f * static_cast<float>(head + 1) / static_cast<float>(shape.heads)));
  }
  const uint32_t positions = shape.first_position + shape.tokens;
  const uint32_t page_count = (positions + shape.page_positions - 1) / shape.page_positions;
  for (uint32_t page = 0; page < page_count; page++) problem.pages.push_back(page_count - 1 - page);
  const uint32_t value_dim = shape.options.values_in_keys ? 0 : shape.value_dim();
  problem.values_offset = shape.kv_heads * kv_block_bytes(format, shape.page_positions, shape.head_dim);
  problem.page_bytes = problem.values_offset + shape.kv_heads * kv_block_bytes(format, shape.page_positions, value_dim);
  problem.page_bytes = (problem.page_bytes + 7) / 4 * 4;
  problem.cache.assign(page_count * problem.page_bytes, 0xff);
  const uint32_t first_visible =
      shape.window != 0 && shape.first_position + 1 > shape.window ? shape.first_position + 1 - shape.window : 0;
  const auto vector_of = [&](uint32_t dim) {
    std::vector<float> vector(dim);
    for (float& value : vector) value = normal(random);
    return vector;
  };
  for (uint32_t head = 0; head < shape.kv_heads; head++) {
    for (uint32_t position = first_visible; position < positions; position++) {
      const CachedVector key = reference::encode(format, vector_of(shape.head_dim)), value = reference::encode(format, vector_of(value_dim));
      problem.keys[{head, position}] = key.values;
      problem.put(0, head, position, key);
      if (value_dim == 0) continue;
      problem.values[{head, position}] = value.values;
      problem.put(problem.values_offset, head, position, value);
    }
  }
  return problem;
}

AttentionArgs make_args(const Problem& problem, std::vector<float>& output, std::vector<float>& scratch) {
  const Case& shape = problem.shape;
  AttentionArgs args = {};
  args.query = problem.query.data();
  args.query_stride = problem.query_stride;
  args.output = output.data();
  args.output_stride = problem.output_stride;
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.value_dim = shape.value_dim();
  args.scale = problem.scale;
  args.soft_cap = shape.options.soft_cap;
  args.window = shape.window;
  args.logn_length = shape.options.logn_length;
  args.first_position = shape.first_position;
  args.pages = problem.pages.data();
  args.page_positions = shape.page_positions;
  args.kv_format = problem.format;
  args.page_bytes = problem.page_bytes;
  args.keys = problem.cache.data();
  args.values = shape.options.values_in_keys ? nullptr : problem.cache.data() + problem.values_offset;
  args.sinks = shape.options.sinks ? problem.sinks.data() : nullptr;
  args.slopes = shape.options.slopes ? problem.slopes.data() : nullptr;
  args.scratch = scratch.data();
  return args;
}

// At most `step` tokens and `head_step` query heads a call; every call gets its own scratch of NaN.
std::vector<float> run(const KernelTable& kernels, const Problem& problem, uint32_t step, uint32_t head_step) {
  const Case& shape = problem.shape;
  std::vector<float> output(size_t{shape.tokens} * problem.output_stride, -7.0f);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const uint32_t group = shape.heads / shape.kv_heads;
  for (uint32_t head = 0; head < shape.heads;) {
    const uint32_t head_end = std::min(head + head_step, (head / group + 1) * group);
    for (uint32_t begin = 0; begin < shape.tokens; begin += step) {
      std::vector<float> scratch(attention_scratch_floats(shape.head_dim, shape.value_dim()), nan);
      AttentionArgs args = make_args(problem, output, scratch);
      args.head_begin = head;
      args.head_end = head_end;
      args.token_begin = begin;
      args.token_end = std::min(begin + step, shape.tokens);
      kernels.attention(args);
    }
    head = head_end;
  }
  return output;
}

std::vector<double> expected_of(const Problem& problem) {
  const Case& shape = problem.shape;
  const Options& options = shape.options;
  std::vector<double> output(size_t{shape.tokens} * problem.output_stride);
  for (uint32_t token = 0; token < shape.tokens; token++) {
    for (uint32_t head = 0; head < shape.heads; head++) {
      const uint32_t kv_head = head / (shape.heads / shape.kv_heads);
      const reference::AttentionOptions each = {problem.scale, shape.window, options.soft_cap, options.logn_length,
                                                options.sinks ? &problem.sinks[head] : nullptr,
                                                options.slopes ? &problem.slopes[head] : nullptr};
      const std::vector<double> result = reference::attend(
          &problem.query[token * problem.query_stride + head * shape.head_dim], shape.head_dim, shape.value_dim(),
          shape.first_position + token, each, [&](uint32_t position) { return problem.key(kv_head, position); },
          [&](uint32_t position) { return problem.value(kv_head, position); });
      std::ranges::copy(result, output.begin() + token * problem.output_stride + head * shape.value_dim());
    }
  }
  return output;
}

void test_in_place(const KernelTable& kernels, Problem problem, const std::vector<float>& expected, const char* name) {
  const Case& shape = problem.shape;
  const uint32_t group = shape.heads / shape.kv_heads;
  for (uint32_t kv_head = 0; kv_head < shape.kv_heads; kv_head++) {
    std::vector<float> scratch(attention_scratch_floats(shape.head_dim, shape.head_dim));
    AttentionArgs args = make_args(problem, problem.query, scratch);
    args.head_begin = kv_head * group;
    args.head_end = args.head_begin + group;
    args.token_end = shape.tokens;
    kernels.attention(args);
  }
  for (size_t i = 0; i < expected.size(); i++) {
    if (i % problem.query_stride >= shape.heads * shape.head_dim) continue;
    check(std::memcmp(&problem.query[i], &expected[i], sizeof(float)) == 0, kernels.name, "differs in place", name);
  }
}

void test_case(const KernelTable& kernels, const Case& shape, KvFormat format, std::mt19937& random) {
  const Options& options = shape.options;
  char name[250];
  snprintf(name, sizeof name,
           "heads %u/%u, head_dim %u/%u, tokens %u from %u, window %u, pages of %u, values_in_keys %d, cap %g, sinks %d, "
           "slopes %d, logn %u, %s",
           shape.heads, shape.kv_heads, shape.head_dim, shape.value_dim(), shape.tokens, shape.first_position, shape.window,
           shape.page_positions, options.values_in_keys, double{options.soft_cap}, options.sinks, options.slopes,
           options.logn_length, kKvFormatNames[static_cast<size_t>(format)]);
  const Problem problem = make_problem(shape, format, random);
  const std::vector<double> expected = expected_of(problem);
  const std::vector<float> whole = run(kernels, problem, shape.tokens, shape.heads);
  const uint32_t width = shape.heads * shape.value_dim();
  for (size_t i = 0; i < whole.size(); i++) {
    if (i % problem.output_stride >= width) {
      check(whole[i] == -7.0f, kernels.name, "writes between rows", name);
    } else {
      check(std::abs(whole[i] - expected[i]) <= 2e-5, kernels.name, "differs from float64", name);
    }
  }
  for (uint32_t step : {1u, 3u, 17u, 40u}) {
    if (step > shape.tokens) continue;
    const std::vector<float> split = run(kernels, problem, step, step == 3 ? 2 : shape.heads);
    check(std::memcmp(split.data(), whole.data(), whole.size() * sizeof(float)) == 0, kernels.name,
          "depends on how tokens and heads are divided", name);
  }
  const std::vector<float> single = run(kernels, problem, shape.tokens, 1);
  check(std::memcmp(single.data(), whole.data(), whole.size() * sizeof(float)) == 0, kernels.name,
        "depends on how heads are divided", name);
  if (shape.value_dim() == shape.head_dim) test_in_place(kernels, problem, whole, name);
}

// Scores that differ by hundreds: the softmax is one key's value, with no overflow on the way.
void test_large_scores(const KernelTable& kernels, std::mt19937& random) {
  Problem problem = make_problem({1, 1, 16, 100, 0, 0, 32}, KvFormat::kF32, random);
  for (float& value : problem.query) value *= 100.0f;
  const std::vector<double> expected = expected_of(problem);
  const std::vector<float> actual = run(kernels, problem, 100, 1);
  for (size_t i = 0; i < actual.size(); i++) {
    if (i % problem.output_stride >= 16) continue;
    check(std::abs(actual[i] - expected[i]) <= 1e-3, kernels.name, "large scores", "softmax");
  }
}

// Every instruction set writes the same bytes, those that the definition says, also of vectors that are hard to encode.
void test_encoding(const KernelTable& kernels, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) {
    for (const uint32_t dim : {1u, 7u, 16u, 33u, 128u}) {
      for (const float factor : {1.0f, 1e-30f, 1e30f, 0.0f, 1e-38f}) {
        std::vector<float> vector(dim);
        for (float& value : vector) value = factor * normal(random);
        std::vector<uint8_t> elements(dim * kv_element_bytes(format)), scalar(elements.size());
        float scale = 0, scalar_scale = 0;
        kernels.encode_kv(format, vector.data(), dim, elements.data(), &scale);
        scalar_kernels().encode_kv(format, vector.data(), dim, scalar.data(), &scalar_scale);
        check(elements == scalar && scale == scalar_scale, kernels.name, "encodes otherwise than scalar code", kKvFormatNames[static_cast<size_t>(format)]);
        if (format == KvFormat::kF32 || factor == 1e-38f) continue;
        const std::vector<double> expected = reference::encode(format, vector).values;
        for (uint32_t i = 0; i < dim; i++) {
          uint32_t bits = uint32_t{elements[i * kv_element_bytes(format)]} << 16;
          if (format == KvFormat::kBF16) bits |= uint32_t{elements[2 * i + 1]} << 24;
          float half;
          std::memcpy(&half, &bits, sizeof half);
          const double value = format == KvFormat::kBF16 ? half : static_cast<int8_t>(elements[i]) * double{scale};
          check(value == expected[i], kernels.name, "encodes otherwise than defined", kKvFormatNames[static_cast<size_t>(format)]);
        }
      }
    }
  }
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> vector(20, 1.0f);
    vector[17] = bad;
    uint8_t codes[40];
    float scale = 0;
    kernels.encode_kv(KvFormat::kQ8, vector.data(), 20, codes, &scale);
    check(std::isnan(scale), kernels.name, "hides what is not finite", "8bit");
    kernels.encode_kv(KvFormat::kBF16, vector.data(), 20, codes, &scale);
    const bool kept = (codes[35] & 0x7f) == 0x7f && (std::isinf(bad) ? codes[34] == 0x80 : (codes[34] & 0xc0) == 0xc0);
    check(kept, kernels.name, "hides what is not finite", "bf16");
  }
}

// One block of keys, several, and a window, each with every option alone and all that can go together.
std::vector<Case> cases_with_options() {
  const Options options[] = {
      {24, false, 0, false, false, 0}, {9, false, 0, false, false, 0},  {0, false, 5.0f, false, false, 0},
      {0, false, 0, true, false, 0},   {0, false, 0, false, true, 0},   {0, false, 0, false, false, 50},
      {0, true, 0, false, false, 0},   {13, true, 0, false, false, 0},  {40, false, 30.0f, true, true, 20},
      {16, true, 2.0f, true, true, 7},
  };
  std::vector<Case> cases;
  for (const Options& each : options) {
    cases.push_back({6, 2, 18, 41, 30, 0, 16, each});
    cases.push_back({3, 3, 32, 130, 0, 0, 64, each});
    cases.push_back({10, 1, 17, 1, 200, 37, 11, each});
  }
  // Multi-head latent attention as DeepSeek has it, and heads of unequal keys and values.
  cases.push_back({16, 1, 576, 5, 70, 0, 64, {512, true, 0, false, false, 0}});
  cases.push_back({128, 1, 576, 1, 99, 0, 64, {512, true, 0, false, false, 0}});
  cases.push_back({4, 4, 192, 20, 0, 0, 32, {128, false, 0, false, false, 0}});
  return cases;
}

}  // namespace

int main() {
  std::vector<Case> cases = {
      {1, 1, 1, 1, 0, 0, 1},     {4, 2, 10, 70, 5, 0, 7},    {3, 3, 12, 33, 100, 20, 16}, {8, 2, 64, 150, 0, 0, 64},
      {5, 1, 80, 67, 61, 0, 48}, {9, 3, 96, 20, 300, 65, 33}, {7, 1, 128, 40, 0, 1, 16},    {2, 2, 256, 9, 130, 0, 128},
      {6, 2, 17, 130, 63, 64, 5}, {71, 1, 33, 3, 90, 0, 64},  {4, 1, 128, 1, 517, 0, 64},   {2, 1, 40, 65, 1, 500, 32},
  };
  for (const Case& each : cases_with_options()) cases.push_back(each);
  for (const KernelTable* kernels : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (kernels == nullptr) continue;
    std::mt19937 random(11);
    test_encoding(*kernels, random);
    for (const Case& shape : cases) {
      for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) test_case(*kernels, shape, format, random);
    }
    test_large_scores(*kernels, random);
  }
  printf("attention_test: %d checks passed\n", checks);
  return 0;
}
