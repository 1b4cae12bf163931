// Norm, gate and rotation of every instruction set against float64, over awkward lengths.
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

void test_rms_norm(const KernelTable& kernels, std::mt19937& random) {
  for (uint32_t width : {1u, 10u, 16u, 63u, 64u, 65u, 96u, 111u, 128u, 129u, 1000u, 4096u}) {
    const uint32_t groups = 3;
    const std::vector<float> input = random_floats(groups * width, 30.0f, random);
    const std::vector<float> weight = random_floats(width, 1.0f, random);
    const float epsilon = 1e-5f;
    std::vector<float> output(input.size());
    kernels.rms_norm(input.data(), output.data(), weight.data(), groups, width, epsilon);
    for (uint32_t group = 0; group < groups; group++) {
      double total = 0;
      for (uint32_t i = 0; i < width; i++) total += std::pow(double{input[group * width + i]}, 2);
      for (uint32_t i = 0; i < width; i++) {
        const double expected = input[group * width + i] / std::sqrt(total / width + epsilon) * weight[i];
        check(close(output[group * width + i], expected, 2e-6), kernels.name, "rms_norm", i);
      }
      std::vector<float> single(input.begin() + group * width, input.begin() + (group + 1) * width);
      kernels.rms_norm(single.data(), single.data(), weight.data(), 1, width, epsilon);
      check(std::memcmp(single.data(), &output[group * width], width * sizeof(float)) == 0, kernels.name,
            "rms_norm in place, one group", width);
    }
  }
}

void test_silu(const KernelTable& kernels, std::mt19937& random) {
  for (size_t count : {1, 15, 16, 17, 100, 4099}) {
    std::vector<float> gate = random_floats(count, 12.0f, random);
    const std::vector<float> up = random_floats(count, 3.0f, random);
    const float special[] = {0.0f, -0.0f, 88.0f, -80.0f, 1000.0f, -1000.0f, 3e38f, -3e38f, 1e-40f};
    for (size_t i = 0; i < count && i < std::size(special); i++) gate[i] = special[i];
    const std::vector<float> before = gate;
    kernels.silu_multiply(gate.data(), up.data(), count);
    for (size_t i = 0; i < count; i++) {
      const double x = before[i];
      const double expected = x / (1 + std::exp(-x)) * up[i];
      if (std::abs(expected) > 3e38) continue;
      check(close(gate[i], expected, 1e-6, 1e-35), kernels.name, "silu_multiply", i);
    }
  }
  float gate = std::numeric_limits<float>::quiet_NaN();
  const float up = 1.0f;
  kernels.silu_multiply(&gate, &up, 1);
  check(std::isnan(gate), kernels.name, "silu_multiply loses NaN", 0);
}

void test_rope(const KernelTable& kernels, std::mt19937& random) {
  const uint32_t shapes[][2] = {{2, 2},   {10, 10},   {12, 6},   {64, 64}, {80, 32},
                                {96, 96}, {128, 128}, {256, 64}, {40, 34}};
  for (const auto& [head_dim, rotary_dim] : shapes) {
    const uint32_t heads = 3, half = rotary_dim / 2;
    std::vector<float> data = random_floats(heads * head_dim, 2.0f, random);
    std::vector<float> cosine(half), sine(half);
    for (uint32_t i = 0; i < half; i++) {
      const double angle = 100.0 * random_floats(1, 1.0f, random)[0];
      cosine[i] = static_cast<float>(std::cos(angle));
      sine[i] = static_cast<float>(std::sin(angle));
    }
    const std::vector<float> before = data;
    kernels.rope(data.data(), heads, head_dim, rotary_dim, cosine.data(), sine.data());
    for (uint32_t head = 0; head < heads; head++) {
      for (uint32_t i = 0; i < head_dim; i++) {
        const float* source = &before[head * head_dim];
        double expected = source[i];
        if (i < half) {
          expected = double{source[i]} * cosine[i] - double{source[i + half]} * sine[i];
        } else if (i < rotary_dim) {
          expected = double{source[i]} * cosine[i - half] + double{source[i - half]} * sine[i - half];
        }
        check(close(data[head * head_dim + i], expected, 0, 2e-6), kernels.name, "rope", i);
      }
    }
  }
}

}  // namespace

int main() {
  for (const KernelTable* kernels : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (kernels == nullptr) continue;
    std::mt19937 random(5);
    test_rms_norm(*kernels, random);
    test_silu(*kernels, random);
    test_rope(*kernels, random);
  }
  printf("vector_test: %d checks passed\n", checks);
  return 0;
}
