// Rate of the quantizers on one core, and the squared error that the searched scales of q4 save.
//
// Errors are shares of the error with the plain largest magnitude as scale. "least" tries every float16 scale of both
// signs from 0.5 to 1.6 times the largest magnitude.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "../../native/platform/half.h"
#include "../../native/cpu/kernels.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

double squared_error(const float* weights, double scale) {
  double total = 0;
  for (uint32_t i = 0; i < kQ4Block; i++) {
    double least = 1e300;
    for (float level : kNormalFloat4) least = std::min(least, std::abs(weights[i] - scale * level));
    total += least * least;
  }
  return total;
}

void print_errors(const char* name, const std::function<float()>& sample) {
  const KernelTable& kernels = best_kernels();
  double plain = 0, searched = 0, least = 0;
  std::vector<float> weights(kQ4Block), decoded(kQ4Block);
  std::vector<uint8_t> packed(row_bytes(Format::kQ4, kQ4Block, kQ4Block));
  for (int block = 0; block < 300; block++) {
    for (float& weight : weights) weight = float_from_bits(float_bits(sample()) & 0xffff0000);
    float magnitude = 0;
    for (float weight : weights) magnitude = std::max(magnitude, std::abs(weight));
    const uint8_t* source = reinterpret_cast<uint8_t*>(weights.data());
    kernels.quantize({Format::kF32, source, 1, kQ4Block, Format::kQ4, kQ4Block, packed.data()});
    kernels.dequantize_row[static_cast<size_t>(Format::kQ4)](packed.data(), kQ4Block, kQ4Block, decoded.data());
    for (uint32_t i = 0; i < kQ4Block; i++) searched += std::pow(double{weights[i]} - decoded[i], 2);
    plain += squared_error(weights.data(), float_from_half(half_nearest(magnitude)));
    double best = 1e300;
    for (uint16_t half = half_nearest(magnitude * 0.5f); half <= half_nearest(magnitude * 1.6f); half++) {
      const double scale = float_from_half(half);
      best = std::min({best, squared_error(weights.data(), scale), squared_error(weights.data(), -scale)});
    }
    least += best;
  }
  printf("q4 squared error, %-8s plain 1.000  searched %.4f  least %.4f\n", name, searched / plain, least / plain);
}

void print_rate(const KernelTable& kernels, Format source_format, Format format, uint32_t block) {
  const uint32_t rows = 64, columns = 4096;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> weights(size_t{rows} * columns);
  for (float& weight : weights) weight = normal(random);
  const size_t element = row_bytes(source_format, 1, 1);
  std::vector<uint8_t> source(weights.size() * element);
  for (size_t i = 0; i < weights.size(); i++) {
    const uint32_t bits = float_bits(weights[i]);
    const uint16_t half = source_format == Format::kF16 ? half_nearest(weights[i]) : static_cast<uint16_t>(bits >> 16);
    std::memcpy(&source[i * element], source_format == Format::kF32 ? static_cast<const void*>(&bits) : &half, element);
  }
  std::vector<uint8_t> output(rows * row_bytes(format, columns, block));
  double best = 0;
  for (int repeat = 0; repeat < 15; repeat++) {
    const auto start = std::chrono::steady_clock::now();
    for (int pass = 0; pass < 4; pass++) {
      kernels.quantize({source_format, source.data(), rows, columns, format, block, output.data()});
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 4 * static_cast<double>(source.size()) / seconds.count());
  }
  const char* names[] = {"f32", "f16", "bf16"};
  printf("%-6s %-4s -> %s/%u %6.2f GB/s of input\n", kernels.name, names[static_cast<size_t>(source_format)],
         format == Format::kQ8 ? "q8" : "q4", block, best / 1e9);
}

}  // namespace

int main() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::student_t_distribution<float> heavy(4.0f);
  std::uniform_real_distribution<float> uniform(-0.02f, 0.02f);
  print_errors("normal", [&] { return normal(random); });
  print_errors("t(4)", [&] { return 0.02f * heavy(random); });
  print_errors("uniform", [&] { return uniform(random); });
  for (const KernelTable* kernels : {avx512_kernels(), avx2_kernels(), neon_kernels(), &scalar_kernels()}) {
    if (kernels == nullptr) continue;
    for (Format source : {Format::kBF16, Format::kF16, Format::kF32}) {
      for (uint32_t block : {32u, 64u, 128u}) print_rate(*kernels, source, Format::kQ8, block);
      print_rate(*kernels, source, Format::kQ4, kQ4Block);
    }
  }
  return 0;
}
