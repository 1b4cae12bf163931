// Quantizers: the same bytes from every instruction set, an independent decoder, and every rule of format.h.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "../../native/platform/half.h"
#include "../../native/cpu/kernels.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

int checks = 0;

void check(bool condition, const char* kernels, const char* what, size_t where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "quantize_test: %s: %s (at %zu)\n", kernels, what, where);
  exit(1);
}

double half_value(const uint8_t* bytes) {
  const int half = bytes[0] | bytes[1] << 8;
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

// Weights as the source format holds them, and their exact values.
struct Source {
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

Source make_source(Format format, const std::vector<float>& weights) {
  Source source;
  for (float weight : weights) {
    const uint32_t bits = float_bits(weight);
    if (format == Format::kF32) {
      for (int shift = 0; shift < 32; shift += 8) source.bytes.push_back(static_cast<uint8_t>(bits >> shift));
      source.values.push_back(weight);
      continue;
    }
    const uint16_t half = format == Format::kBF16 ? static_cast<uint16_t>(bits >> 16) : half_nearest(weight);
    const uint8_t pair[2] = {static_cast<uint8_t>(half), static_cast<uint8_t>(half >> 8)};
    source.bytes.insert(source.bytes.end(), pair, pair + 2);
    source.values.push_back(format == Format::kBF16 ? double{float_from_bits(bits & 0xffff0000)} : half_value(pair));
  }
  return source;
}

void check_q8_row(const char* name, const double* weights, uint32_t columns, uint32_t block, const uint8_t* row) {
  const uint32_t blocks = (columns + block - 1) / block;
  for (uint32_t b = 0; b < blocks; b++) {
    const double scale = half_value(row + blocks * block + 2 * b);
    double magnitude = 0;
    const uint32_t end = std::min(columns, (b + 1) * block);
    for (uint32_t i = b * block; i < end; i++) magnitude = std::max(magnitude, std::abs(weights[i]));
    check(scale >= magnitude, name, "q8 scale is below the largest weight", b);
    const double below = scale <= 0x1p-14 ? scale - 0x1p-24 : scale * (1 - 0x1p-10);
    check(magnitude == 0 ? scale == 0 : below < magnitude, name, "q8 scale is not the least", b);
    for (uint32_t i = b * block; i < (b + 1) * block; i++) {
      const int code = static_cast<int8_t>(row[i]);
      if (i >= columns) {
        check(code == 0, name, "q8 padding", i);
        continue;
      }
      const double step = scale / 127;
      check(std::abs(code * step - weights[i]) <= step * (0.5 + 1e-4), name, "q8 code is not the nearest", i);
      check(code != -128, name, "q8 code -128", i);
    }
  }
}

// Returns the squared error.
double check_q4_row(const char* name, const double* weights, uint32_t columns, const uint8_t* row) {
  const uint32_t blocks = (columns + kQ4Block - 1) / kQ4Block;
  double error = 0;
  for (uint32_t b = 0; b < blocks; b++) {
    const double scale = half_value(row + blocks * 32 + 2 * b);
    for (uint32_t i = 0; i < kQ4Block; i++) {
      const uint32_t lane = i % 8, nibble = i / 8;
      const int code = row[b * 32 + lane * 4 + nibble / 2] >> (nibble % 2 * 4) & 15;
      const uint32_t column = b * kQ4Block + i;
      if (column >= columns || scale == 0) {
        check(code == 7, name, "q4 padding or zero block", column);
        continue;
      }
      const double distance = std::abs(kNormalFloat4[code] * scale - weights[column]);
      for (float level : kNormalFloat4) {
        const double other = std::abs(level * scale - weights[column]);
        check(distance <= other + std::abs(scale) * 1e-6, name, "q4 code is not the nearest", column);
      }
      error += distance * distance;
    }
  }
  return error;
}

double plain_q4_error(const double* weights, uint32_t columns) {
  double error = 0;
  for (uint32_t begin = 0; begin < columns; begin += kQ4Block) {
    const uint32_t end = std::min(columns, begin + kQ4Block);
    double magnitude = 0;
    for (uint32_t i = begin; i < end; i++) magnitude = std::max(magnitude, std::abs(weights[i]));
    for (uint32_t i = begin; i < end; i++) {
      double least = 1e300;
      for (float level : kNormalFloat4) least = std::min(least, std::pow(level * magnitude - weights[i], 2));
      error += least;
    }
  }
  return error;
}

// Weights of very different sizes: normal blocks, zeros, float16 subnormals, values near the limits.
std::vector<float> make_weights(size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  const float deviations[] = {0.02f, 1.0f, 0.0f, 1e-6f, 4000.0f, 1e-12f, 3e-8f, 1e-4f};
  std::vector<float> weights(count);
  for (size_t i = 0; i < count; i++) weights[i] = normal(random) * deviations[i / 150 % std::size(deviations)];
  return weights;
}

void test_rows(const std::vector<const KernelTable*>& tables) {
  std::mt19937 random(3);
  for (Format source_format : {Format::kF32, Format::kF16, Format::kBF16}) {
    for (uint32_t columns : {1u, 7u, 16u, 31u, 64u, 65u, 100u, 129u, 2000u}) {
      const uint32_t rows = 5;
      const Source source = make_source(source_format, make_weights(size_t{rows} * columns, random));
      double searched = 0, plain = 0;
      const std::pair<Format, uint32_t> shapes[] = {
          {Format::kQ4, kQ4Block}, {Format::kQ8, 32}, {Format::kQ8, 64}, {Format::kQ8, 128}, {Format::kQ8, 1024}};
      for (const auto& [format, block] : shapes) {
        const size_t stride = row_bytes(format, columns, block);
        std::vector<uint8_t> first;
        for (const KernelTable* kernels : tables) {
          std::vector<uint8_t> output(rows * stride, 0xee);
          check(kernels->quantize({source_format, source.bytes.data(), rows, columns, format, block, output.data()}),
                kernels->name, "refuses finite weights", columns);
          if (first.empty()) first = output;
          check(first == output, kernels->name, "writes other bytes than the scalar kernels", columns);
        }
        for (uint32_t row = 0; row < rows; row++) {
          const double* weights = &source.values[size_t{row} * columns];
          if (format == Format::kQ8) {
            check_q8_row("scalar", weights, columns, block, &first[row * stride]);
          } else {
            searched += check_q4_row("scalar", weights, columns, &first[row * stride]);
            plain += plain_q4_error(weights, columns);
          }
        }
      }
      if (columns < 2000) continue;
      check(searched < 0.9 * plain, "scalar", "searched q4 scales do not lower the error", columns);
    }
  }
}

void test_refusals(const KernelTable& kernels) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (Format format : {Format::kQ8, Format::kQ4}) {
    for (uint32_t columns : {3u, 64u, 130u}) {
      std::vector<uint8_t> output(row_bytes(format, columns, 64));
      for (float bad : {infinity, -infinity, nan, 65536.0f, -1e30f, 3e38f}) {
        for (uint32_t place : {0u, columns - 1}) {
          std::vector<float> weights(columns, 0.5f);
          weights[place] = bad;
          const uint8_t* bytes = reinterpret_cast<const uint8_t*>(weights.data());
          check(!kernels.quantize({Format::kF32, bytes, 1, columns, format, 64, output.data()}), kernels.name,
                "accepts a value that it cannot hold", place);
        }
      }
      std::vector<float> largest(columns, 65504.0f);
      const uint8_t* bytes = reinterpret_cast<uint8_t*>(largest.data());
      check(kernels.quantize({Format::kF32, bytes, 1, columns, format, 64, output.data()}), kernels.name,
            "refuses the largest float16", columns);
    }
  }
}

void test_halves() {
  for (uint32_t half = 0; half < 0x7c00; half++) {
    const uint8_t bytes[2] = {static_cast<uint8_t>(half), static_cast<uint8_t>(half >> 8)};
    const double value = half_value(bytes);
    const float exact = float_from_half(static_cast<uint16_t>(half));
    check(exact == value, "half", "float_from_half", half);
    check(half_nearest(exact) == half && half_nearest(-exact) == (half | 0x8000), "half", "round trip", half);
    check(half_above(exact) == half, "half", "half_above is not exact", half);
    if (half == 0x7bff) break;
    const float next = float_from_half(static_cast<uint16_t>(half + 1));
    const float middle = static_cast<float>((double{exact} + next) / 2);
    check(half_nearest(middle) == (half + (half & 1)), "half", "ties go to even", half);
    check(half_nearest(std::nextafter(middle, 0.0f)) == half, "half", "below the middle", half);
    check(half_nearest(std::nextafter(middle, 1e6f)) == half + 1, "half", "above the middle", half);
    check(half_above(std::nextafter(exact, 1e6f)) == half + 1, "half", "half_above rounds down", half);
  }
}

}  // namespace

int main() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* kernels : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (kernels != nullptr) tables.push_back(kernels);
  }
  test_halves();
  test_rows(tables);
  for (const KernelTable* kernels : tables) test_refusals(*kernels);
  printf("quantize_test: %d checks passed\n", checks);
  return 0;
}
