// The matrix products and dequantizers of every instruction set against float64, at awkward shapes, and bit-identical
// results however rows and tokens are divided.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

constexpr const char* kFormatNames[kFormatCount] = {"f32", "f16", "bf16", "q8", "q4"};

std::mt19937 generator(7);

uint32_t uniform(uint32_t low, uint32_t high) { return std::uniform_int_distribution<uint32_t>(low, high)(generator); }
float normal() { return std::normal_distribution<float>()(generator); }

double half_value(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const double mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

template <typename T>
T read(const uint8_t* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

// The definitions of format.h.
double weight_value(Format format, const uint8_t* row, uint32_t columns, uint32_t block, uint32_t column) {
  switch (format) {
    case Format::kF32:
      return read<float>(row + 4 * size_t{column});
    case Format::kF16:
      return half_value(read<uint16_t>(row + 2 * size_t{column}));
    case Format::kBF16: {
      const uint32_t bits = uint32_t{read<uint16_t>(row + 2 * size_t{column})} << 16;
      return read<float>(reinterpret_cast<const uint8_t*>(&bits));
    }
    case Format::kQ8: {
      const size_t codes = (size_t{columns} + block - 1) / block * block;
      return read<int8_t>(row + column) * (half_value(read<uint16_t>(row + codes + 2 * (column / block))) / 127.0);
    }
    default: {
      const size_t blocks = (size_t{columns} + 63) / 64;
      const uint32_t within = column % 64;
      const uint32_t lane = read<uint32_t>(row + column / 64 * 32 + 4 * (within % 8));
      const double scale = half_value(read<uint16_t>(row + blocks * 32 + 2 * (column / 64)));
      return kNormalFloat4[lane >> 4 * (within / 8) & 15] * scale;
    }
  }
}

void put_half(uint8_t* target, float low, float high) {
  const float magnitude = low + (high - low) * static_cast<float>(uniform(0, 100)) / 100;
  const uint32_t exponent = static_cast<uint32_t>(15 + std::lround(std::log2(magnitude)));
  const uint16_t half = static_cast<uint16_t>(exponent << 10 | uniform(0, 1023) | uniform(0, 1) << 15);
  std::memcpy(target, &half, sizeof half);
}

void fill_row(Format format, uint8_t* row, uint32_t columns, uint32_t block) {
  if (format == Format::kF32 || format == Format::kF16 || format == Format::kBF16) {
    for (uint32_t c = 0; c < columns; ++c) {
      const float value = normal();
      if (format == Format::kF32) std::memcpy(row + 4 * size_t{c}, &value, 4);
      if (format == Format::kBF16) std::memcpy(row + 2 * size_t{c}, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
      if (format == Format::kF16) put_half(row + 2 * size_t{c}, 0.01f, 2.0f);
    }
    return;
  }
  const size_t blocks = (size_t{columns} + block - 1) / block;
  const size_t code_bytes = format == Format::kQ8 ? blocks * block : blocks * 32;
  std::memset(row, format == Format::kQ8 ? 0 : 0x77, code_bytes);
  for (uint32_t c = 0; c < columns; ++c) {
    if (format == Format::kQ8) {
      row[c] = static_cast<uint8_t>(uniform(0, 254) - 127);
    } else {
      const size_t nibble = c % 64 / 8;
      uint8_t& byte = row[c / 64 * 32 + c % 8 * 4 + nibble / 2];
      const uint32_t shift = nibble % 2 * 4;
      byte = static_cast<uint8_t>((byte & ~(15u << shift)) | uniform(0, 15) << shift);
    }
  }
  for (size_t b = 0; b < blocks; ++b) put_half(row + code_bytes + 2 * b, 0.05f, 1.0f);
}

struct Shape {
  uint32_t rows, columns, tokens, block;
  bool bias, accumulate;
};

// Exact-size heap memory for everything a kernel may read or write, so that a sanitizer sees any step outside.
struct Problem {
  Shape shape;
  Format format;
  size_t row_stride, weight_offset, input_stride, output_stride;
  std::vector<uint8_t> weights;
  std::vector<float> input, output, bias, expected, bound;

  const uint8_t* row(uint32_t index) const { return weights.data() + weight_offset + index * row_stride; }
};

constexpr float kGuard = -12345.0f;

Problem make_problem(Format format, const Shape& shape) {
  Problem problem;
  problem.shape = shape;
  problem.format = format;
  const size_t bytes = row_bytes(format, shape.columns, shape.block);
  problem.row_stride = bytes + uniform(0, 2) * 5;
  problem.weight_offset = uniform(0, 3);
  problem.input_stride = shape.columns + uniform(0, 2) * 3;
  problem.output_stride = shape.rows + uniform(0, 2) * 7;
  problem.weights.assign(problem.weight_offset + (shape.rows - 1) * problem.row_stride + bytes, 0xff);
  for (uint32_t r = 0; r < shape.rows; ++r) {
    uint8_t* const row = problem.weights.data() + problem.weight_offset + r * problem.row_stride;
    fill_row(format, row, shape.columns, shape.block);
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  problem.input.assign((shape.tokens - 1) * problem.input_stride + shape.columns, nan);
  problem.output.assign((shape.tokens - 1) * problem.output_stride + shape.rows, kGuard);
  problem.bias.resize(shape.rows);
  for (float& value : problem.bias) value = normal();
  problem.expected.resize(size_t{shape.rows} * shape.tokens);
  problem.bound.resize(problem.expected.size());
  for (uint32_t t = 0; t < shape.tokens; ++t) {
    for (uint32_t c = 0; c < shape.columns; ++c) problem.input[t * problem.input_stride + c] = normal();
    for (uint32_t r = 0; r < shape.rows; ++r) problem.output[t * problem.output_stride + r] = normal();
  }
  std::vector<double> weight(shape.columns);
  for (uint32_t r = 0; r < shape.rows; ++r) {
    for (uint32_t c = 0; c < shape.columns; ++c) {
      weight[c] = weight_value(format, problem.row(r), shape.columns, shape.block, c);
    }
    for (uint32_t t = 0; t < shape.tokens; ++t) {
      double total = 0, magnitude = 0;
      for (uint32_t c = 0; c < shape.columns; ++c) {
        const double product = weight[c] * problem.input[t * problem.input_stride + c];
        total += product;
        magnitude += std::abs(product);
      }
      const double before = shape.accumulate ? problem.output[t * problem.output_stride + r] : 0.0;
      const double bias = shape.bias ? problem.bias[r] : 0.0;
      problem.expected[size_t{t} * shape.rows + r] = static_cast<float>(total + bias + before);
      problem.bound[size_t{t} * shape.rows + r] =
          static_cast<float>(2e-6 * magnitude + 2e-7 * (std::abs(bias) + std::abs(before)) + 1e-30);
    }
  }
  return problem;
}

// Runs rows [row, row + rows) of tokens [token, token + tokens) into `output`.
void run(const KernelTable& kernels, const Problem& problem, std::vector<float>& output, uint32_t row, uint32_t rows,
         uint32_t token, uint32_t tokens) {
  std::vector<float> scratch(matmul_scratch_floats(problem.shape.columns, tokens) + 1);
  MatmulArgs args{};
  args.weight = problem.row(row);
  args.row_bytes = problem.row_stride;
  args.rows = rows;
  args.columns = problem.shape.columns;
  args.block = problem.shape.block;
  args.input = problem.input.data() + token * problem.input_stride;
  args.input_stride = problem.input_stride;
  args.output = output.data() + token * problem.output_stride + row;
  args.output_stride = problem.output_stride;
  args.tokens = tokens;
  args.bias = problem.shape.bias ? problem.bias.data() + row : nullptr;
  args.accumulate = problem.shape.accumulate;
  args.scratch = scratch.data() + 1;
  kernels.matmul[static_cast<size_t>(problem.format)](args);
}

[[noreturn]] void fail(const KernelTable& kernels, const Problem& problem, const char* what, uint32_t row,
                       uint32_t token, float value, float expected) {
  const Shape& shape = problem.shape;
  fprintf(stderr, "matmul_test: %s %s rows=%u columns=%u tokens=%u block=%u bias=%d accumulate=%d: ", kernels.name,
          kFormatNames[static_cast<size_t>(problem.format)], shape.rows, shape.columns, shape.tokens, shape.block,
          shape.bias, shape.accumulate);
  fprintf(stderr, "%s at row %u, token %u: %.9g, expected %.9g\n", what, row, token, value, expected);
  exit(1);
}

void check_problem(const KernelTable& kernels, const Problem& problem) {
  const Shape& shape = problem.shape;
  std::vector<float> whole = problem.output;
  run(kernels, problem, whole, 0, shape.rows, 0, shape.tokens);
  for (size_t i = 0; i < whole.size(); ++i) {
    const uint32_t token = static_cast<uint32_t>(i / problem.output_stride);
    const uint32_t row = static_cast<uint32_t>(i % problem.output_stride);
    if (row >= shape.rows) {
      if (whole[i] != kGuard) fail(kernels, problem, "a write outside the output", row, token, whole[i], kGuard);
      continue;
    }
    const size_t index = size_t{token} * shape.rows + row;
    const float expected = problem.expected[index];
    if (!(std::abs(whole[i] - expected) <= problem.bound[index])) {
      fail(kernels, problem, "a wrong sum", row, token, whole[i], expected);
    }
  }
  std::vector<float> parts = problem.output;
  for (uint32_t token = 0; token < shape.tokens;) {
    const uint32_t tokens = std::min(uniform(0, 1) == 0 ? 1 : uniform(1, 120), shape.tokens - token);
    for (uint32_t row = 0; row < shape.rows;) {
      const uint32_t rows = std::min(uniform(0, 2) == 0 ? uniform(1, 9) : uniform(1, 400), shape.rows - row);
      run(kernels, problem, parts, row, rows, token, tokens);
      row += rows;
    }
    token += tokens;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    if (std::memcmp(&whole[i], &parts[i], sizeof(float)) == 0) continue;
    fail(kernels, problem, "parts differ from the whole", static_cast<uint32_t>(i % problem.output_stride),
         static_cast<uint32_t>(i / problem.output_stride), parts[i], whole[i]);
  }
}

// Weights as float32, rounded where format.h's products round.
void check_dequantized(const KernelTable& kernels, const Problem& problem) {
  const Shape& shape = problem.shape;
  std::vector<float> output(shape.columns);
  const uint32_t row = shape.rows - 1;
  const auto dequantize_row = kernels.dequantize_row[static_cast<size_t>(problem.format)];
  dequantize_row(problem.row(row), shape.columns, shape.block, output.data());
  for (uint32_t c = 0; c < shape.columns; ++c) {
    const double exact = weight_value(problem.format, problem.row(row), shape.columns, shape.block, c);
    if (std::abs(output[c] - exact) <= 1.2e-7 * std::abs(exact)) continue;
    fail(kernels, problem, "a wrong weight", row, c, output[c], static_cast<float>(exact));
  }
}

void check_all_halves(const KernelTable& kernels) {
  std::vector<uint8_t> row(2 * 65536);
  for (uint32_t i = 0; i < 65536; ++i) std::memcpy(row.data() + 2 * i, &i, 2);
  std::vector<float> output(65536);
  kernels.dequantize_row[static_cast<size_t>(Format::kF16)](row.data(), 65536, 64, output.data());
  for (uint32_t i = 0; i < 65536; ++i) {
    const double exact = half_value(static_cast<uint16_t>(i));
    if (std::isnan(exact) ? std::isnan(output[i]) : output[i] == exact) continue;
    fprintf(stderr, "matmul_test: %s: float16 0x%04x became %.9g, expected %.9g\n", kernels.name, i, output[i], exact);
    exit(1);
  }
}

void check_kernels(const KernelTable& kernels) {
  generator.seed(7);
  uint32_t count = 0;
  for (uint32_t f = 0; f < kFormatCount; ++f) {
    const Format format = static_cast<Format>(f);
    std::vector<Shape> shapes = {
        {1, 1, 1, 64, false, false},  {5, 63, 2, 64, true, false},   {1, 64, 3, 64, false, true},
        {9, 513, 4, 64, true, true},  {300, 512, 1, 64, true, true}, {33, 1600, 5, 64, false, false},
        {270, 96, 7, 64, true, true}, {17, 1030, 100, 64, true, false},
    };
    for (int i = 0; i < 40; ++i) {
      const uint32_t rows = uniform(1, i % 4 == 0 ? 300 : 40);
      const bool bias = uniform(0, 1) == 1, accumulate = uniform(0, 1) == 1;
      shapes.push_back({rows, uniform(1, 700), uniform(1, 37), 64, bias, accumulate});
    }
    for (Shape& shape : shapes) {
      if (format == Format::kQ8) shape.block = 32u << uniform(0, 6);
      const Problem problem = make_problem(format, shape);
      check_problem(kernels, problem);
      check_dequantized(kernels, problem);
      ++count;
    }
  }
  check_all_halves(kernels);
  printf("matmul_test: %s: %u problems\n", kernels.name, count);
}

}  // namespace

int main() {
  const KernelTable* const tables[] = {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()};
  for (const KernelTable* kernels : tables) {
    if (kernels != nullptr) check_kernels(*kernels);
  }
  return 0;
}
