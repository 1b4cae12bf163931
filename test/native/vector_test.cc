// Norms, activations, rotation and caps of every instruction set against float64, over awkward lengths.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "reference_ops.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

int checks = 0;

void check(bool condition, const char* kernels, const char* what, size_t where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "vector_test: %s: %s (at %zu)\n", kernels, what, where);
  exit(1);
}

std::vector<float> random_floats(size_t count, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

bool close(double actual, double expected, double relative, double absolute = 1e-30) {
  return std::abs(actual - expected) <= std::abs(expected) * relative + absolute;
}

struct NormCase {
  uint32_t width;
  bool centered, weight, bias, group_weights, accumulate;
};

void test_norm(const KernelTable& kernels, const NormCase& shape, std::mt19937& random) {
  const uint32_t groups = 3, width = shape.width;
  // An offset that a LayerNorm must take off before it squares.
  std::vector<float> input = random_floats(groups * width, 30.0f, random);
  for (float& value : input) value += 100.0f;
  const size_t weights = shape.group_weights ? groups * width : width;
  const std::vector<float> weight = random_floats(weights, 1.0f, random);
  const std::vector<float> bias = random_floats(weights, 1.0f, random);
  const std::vector<float> before = random_floats(groups * width, 1.0f, random);
  std::vector<float> output = before;
  NormArgs args{};
  args.input = input.data();
  args.output = output.data();
  args.weight = shape.weight ? weight.data() : nullptr;
  args.bias = shape.bias ? bias.data() : nullptr;
  args.groups = groups;
  args.width = width;
  args.epsilon = 1e-5f;
  args.centered = shape.centered;
  args.group_weights = shape.group_weights;
  args.accumulate = shape.accumulate;
  kernels.norm(args);
  for (uint32_t group = 0; group < groups; group++) {
    const float* source = &input[group * width];
    const std::vector<double> normal = reference::normalize(source, width, args.epsilon, shape.centered);
    for (uint32_t i = 0; i < width; i++) {
      const size_t at = group * width + i, parameter = shape.group_weights ? at : i;
      double expected = normal[i];
      if (shape.weight) expected *= weight[parameter];
      if (shape.bias) expected += bias[parameter];
      if (shape.accumulate) expected += before[at];
      check(close(output[at], expected, 2e-6, width == 1 && shape.centered ? 1e-2 : 4e-6), kernels.name, "norm", at);
    }
    if (shape.accumulate) continue;
    std::vector<float> single(source, source + width);
    args.input = args.output = single.data();
    args.groups = 1;
    if (shape.group_weights && shape.weight) args.weight = &weight[group * width];
    if (shape.group_weights && shape.bias) args.bias = &bias[group * width];
    kernels.norm(args);
    check(std::memcmp(single.data(), &output[group * width], width * sizeof(float)) == 0, kernels.name,
          "norm in place, one group", width);
  }
}

void test_norms(const KernelTable& kernels, std::mt19937& random) {
  for (uint32_t width : {1u, 10u, 16u, 63u, 64u, 65u, 96u, 111u, 128u, 129u, 1000u, 4096u}) {
    for (uint32_t options = 0; options < 32; options++) {
      const auto has = [options](uint32_t bit) { return (options >> bit & 1) != 0; };
      test_norm(kernels, {width, has(0), has(1), has(2), has(3), has(4)}, random);
    }
  }
}

void test_activation(const KernelTable& kernels, Activation activation, std::mt19937& random) {
  ActivationArgs args{};
  args.activation = activation;
  args.alpha = 1.702f;
  args.limit = 7.0f;
  const size_t kind = static_cast<size_t>(activation);
  const std::vector<float> special = {0.0f, -0.0f, 88.0f, -80.0f, 1000.0f, -1000.0f, 3e38f, -3e38f, 1e-40f, 7.0f, -5.5f};
  for (size_t count : {1, 15, 16, 17, 100, 4099}) {
    for (const bool with_up : {true, false}) {
      if (!with_up && activation == Activation::kClampedSwiglu) continue;
      std::vector<float> gate = random_floats(count, count % 2 == 0 ? 2.0f : 12.0f, random);
      const std::vector<float> up = random_floats(count, 6.0f, random);
      for (size_t i = 0; i < count && i < special.size(); i++) gate[i] = special[i];
      const std::vector<float> before = gate;
      args.gate = gate.data();
      args.up = with_up ? up.data() : nullptr;
      args.count = count;
      kernels.activate(args);
      for (size_t i = 0; i < count; i++) {
        const double expected = reference::activate(activation, before[i], with_up ? up[i] : 1, args.alpha, args.limit);
        if (std::abs(expected) > 3e38) continue;
        // The exponent of a tail is rounded to float32: what is left grows with it.
        const double tail = std::fmax(0, std::fmin(-double{before[i]}, 30));
        const double relative = 1.5e-6 + (activation == Activation::kSilu ? 0 : 4e-8 * tail * tail * tail);
        check(close(gate[i], expected, relative, 1e-35), kernels.name, "activation", kind * 10000 + i);
      }
    }
  }
  float gate = std::numeric_limits<float>::quiet_NaN();
  const float up = 1.0f;
  args.gate = &gate;
  args.up = &up;
  args.count = 1;
  kernels.activate(args);
  check(std::isnan(gate), kernels.name, "activation loses NaN", kind);
}

void test_soft_cap(const KernelTable& kernels, std::mt19937& random) {
  for (float cap : {30.0f, 0.5f, 1e4f}) {
    for (size_t count : {1, 15, 16, 17, 1001}) {
      std::vector<float> values = random_floats(count, 50.0f, random);
      const float special[] = {0.0f, 1e-30f, -1e-6f, 0.6f * cap, -0.62f * cap, 0.63f * cap, 3e38f, -3e38f, INFINITY, -INFINITY};
      for (size_t i = 0; i < count && i < std::size(special); i++) values[i] = special[i];
      const std::vector<float> before = values;
      kernels.soft_cap(values.data(), count, cap);
      for (size_t i = 0; i < count; i++) {
        check(close(values[i], cap * std::tanh(double{before[i]} / cap), 1e-6), kernels.name, "soft_cap", i);
      }
    }
  }
  float value = std::numeric_limits<float>::quiet_NaN();
  kernels.soft_cap(&value, 1, 30.0f);
  check(std::isnan(value), kernels.name, "soft_cap loses NaN", 0);
}

struct RopeCase {
  uint32_t head_dim, rotary_dim, offset;
};

void test_rope(const KernelTable& kernels, const RopeCase& shape, bool interleaved, std::mt19937& random) {
  const uint32_t heads = 3, half = shape.rotary_dim / 2;
  std::vector<float> data = random_floats(heads * shape.head_dim, 2.0f, random);
  std::vector<float> cosine(half), sine(half);
  for (uint32_t i = 0; i < half; i++) {
    const double angle = 100.0 * random_floats(1, 1.0f, random)[0];
    cosine[i] = static_cast<float>(std::cos(angle));
    sine[i] = static_cast<float>(std::sin(angle));
  }
  std::vector<double> expected(data.begin(), data.end());
  for (uint32_t head = 0; head < heads; head++) {
    for (uint32_t i = 0; i < half; i++) {
      const size_t start = head * shape.head_dim + shape.offset;
      const size_t first = start + (interleaved ? 2 * i : i), second = start + (interleaved ? 2 * i + 1 : i + half);
      expected[first] = double{data[first]} * cosine[i] - double{data[second]} * sine[i];
      expected[second] = double{data[first]} * sine[i] + double{data[second]} * cosine[i];
    }
  }
  kernels.rope({data.data(), heads, shape.head_dim, shape.rotary_dim, shape.offset, interleaved, cosine.data(), sine.data()});
  for (size_t i = 0; i < data.size(); i++) check(close(data[i], expected[i], 0, 2e-6), kernels.name, "rope", i);
}

void test_ropes(const KernelTable& kernels, std::mt19937& random) {
  const RopeCase shapes[] = {{2, 2, 0},    {10, 10, 0},   {12, 6, 0},   {64, 64, 0},  {80, 32, 0},    {96, 96, 0},  {128, 128, 0},
                             {256, 64, 0}, {40, 34, 0},   {12, 6, 6},   {12, 6, 3},   {192, 64, 128}, {576, 64, 512}, {37, 22, 15}};
  for (const RopeCase& shape : shapes) {
    for (const bool interleaved : {false, true}) test_rope(kernels, shape, interleaved, random);
  }
}

}  // namespace

int main() {
  for (const KernelTable* kernels : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (kernels == nullptr) continue;
    std::mt19937 random(5);
    test_norms(*kernels, random);
    for (Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kClampedSwiglu}) {
      test_activation(*kernels, activation, random);
    }
    test_soft_cap(*kernels, random);
    test_ropes(*kernels, random);
  }
  printf("vector_test: %d checks passed\n", checks);
  return 0;
}
