// What bf16_window saves on weights of several distributions, and how fast one core counts escapes, encodes and decodes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "../../native/codec/bf16_window.h"
#include "../../native/cpu/kernels.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

constexpr uint32_t kRows = 256, kColumns = 4096;

// GB/s of bfloat16: the fastest of some repeats, because machines are rarely idle.
double rate(const std::function<void()>& work) {
  double fastest = 1e9;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    fastest = std::min(fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * kRows * kColumns / fastest / 1e9;
}

void print(const char* name, const std::function<float(uint32_t row)>& sample) {
  std::vector<uint8_t> weights(size_t{2} * kRows * kColumns);
  for (uint32_t i = 0; i < kRows * kColumns; ++i) {
    const float value = sample(i / kColumns);
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    std::memcpy(weights.data() + size_t{2} * i, reinterpret_cast<const uint8_t*>(&bits) + 2, 2);
  }
  const WindowSource source{weights.data(), kRows, kColumns};
  const uint32_t block = std::max(static_cast<uint32_t>(most_escapes(source)), 1u);
  const size_t bytes = row_bytes(Format::kBF16Window, kColumns, block);
  std::vector<uint8_t> encoded(kRows * bytes);
  std::vector<float> decoded(kColumns);
  const double counting = rate([&] { most_escapes(source); });
  const double encoding = rate([&] { encode_windows(source, block, encoded.data()); });
  printf("%-22s %5.2f %% of the bytes; counted at %.2f, encoded at %.2f GB/s; decoded to float32 at", name,
         100.0 * static_cast<double>(bytes) / (2.0 * kColumns), counting, encoding);
  for (const KernelTable* table : {avx512_kernels(), avx2_kernels(), neon_kernels(), &scalar_kernels()}) {
    if (table == nullptr) continue;
    const auto decode = table->dequantize_row[static_cast<size_t>(Format::kBF16Window)];
    const double decoding = rate([&] {
      for (uint32_t row = 0; row < kRows; ++row) decode(encoded.data() + row * bytes, kColumns, block, decoded.data());
    });
    printf(" %.2f (%s)", decoding, table->name);
  }
  printf("\n");
}

}  // namespace

int main() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::student_t_distribution<float> heavy(4.0f);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> deviations(kRows);
  for (float& deviation : deviations) deviation = 0.02f * std::exp2(normal(random));
  print("normal", [&](uint32_t) { return 0.02f * normal(random); });
  print("normal, uneven rows", [&](uint32_t row) { return deviations[row] * normal(random); });
  print("Student's t(4)", [&](uint32_t) { return 0.02f * heavy(random); });
  print("uniform", [&](uint32_t) { return 0.02f * uniform(random); });
  return 0;
}
