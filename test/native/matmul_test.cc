// The matrix products and dequantizers of every instruction set against float64, at awkward shapes, and bit-identical
// results however rows and tokens are divided.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "format_shapes.h"
#include "random_parts.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

RandomRows random_rows(7);

uint32_t uniform(uint32_t low, uint32_t high) { return random_rows.uniform(low, high); }
float normal() { return random_rows.normal(); }

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
    random_rows.fill(format, row, shape.columns, shape.block);
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
      weight[c] = reference::weight_value(format, problem.row(r), shape.columns, shape.block, c);
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
          traits_of(problem.format).name, shape.rows, shape.columns, shape.tokens, shape.block,
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
  reference::in_random_parts(random_rows, shape.rows, shape.tokens, [&](uint32_t row, uint32_t rows, uint32_t token, uint32_t tokens) {
    run(kernels, problem, parts, row, rows, token, tokens);
  });
  const size_t i = reference::first_difference(whole, parts);
  if (i < whole.size()) {
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
    const double exact = reference::weight_value(problem.format, problem.row(row), shape.columns, shape.block, c);
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
    const double exact = reference::half_value(static_cast<uint16_t>(i));
    if (std::isnan(exact) ? std::isnan(output[i]) : output[i] == exact) continue;
    fprintf(stderr, "matmul_test: %s: float16 0x%04x became %.9g, expected %.9g\n", kernels.name, i, output[i], exact);
    exit(1);
  }
}

// Every code of fp8 and of its scales' signs, and every scale of mxfp4.
void check_all_codes(const KernelTable& kernels) {
  const auto check = [&](Format format, const std::vector<uint8_t>& row, uint32_t columns, uint32_t block) {
    std::vector<float> output(columns);
    kernels.dequantize_row[static_cast<size_t>(format)](row.data(), columns, block, output.data());
    for (uint32_t c = 0; c < columns; ++c) {
      const double exact = reference::weight_value(format, row.data(), columns, block, c);
      if (std::isnan(exact) ? std::isnan(output[c]) : output[c] == static_cast<float>(exact)) continue;
      fprintf(stderr, "matmul_test: %s: %s column %u became %.9g, expected %.9g\n", kernels.name, traits_of(format).name,
              c, output[c], exact);
      exit(1);
    }
  };
  const float scales[] = {1.0f, -0.7f, 3e-38f, 1e-40f, 6e35f};
  for (const float scale : scales) {
    std::vector<uint8_t> row(256 + 4);
    for (uint32_t i = 0; i < 256; ++i) row[i] = static_cast<uint8_t>(i);
    std::memcpy(row.data() + 256, &scale, 4);
    check(Format::kFp8, row, 256, 256);
  }
  std::vector<uint8_t> row(255 * 16 + 16 + 255);
  for (uint32_t i = 0; i < 256 * 16; ++i) row[i] = static_cast<uint8_t>(i % 16 * 17);
  for (uint32_t i = 0; i < 255; ++i) row[256 * 16 + i] = static_cast<uint8_t>(i);
  check(Format::kMxfp4, row, 255 * 32, 32);
}

Shape adapt(Shape shape, Format format, uint32_t index) {
  const reference::FormatShape fitting = reference::fit_format(format, shape.columns, index, random_rows);
  shape.columns = fitting.columns;
  shape.block = fitting.block;
  return shape;
}

void check_kernels(const KernelTable& kernels) {
  random_rows = RandomRows(7);
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
    shapes.push_back({7, 72, 1, 64, true, false});
    for (const Shape& shape : shapes) {
      const Problem problem = make_problem(format, adapt(shape, format, count));
      check_problem(kernels, problem);
      check_dequantized(kernels, problem);
      ++count;
    }
  }
  check_all_halves(kernels);
  check_all_codes(kernels);
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
