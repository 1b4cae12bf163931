// Products of prompts in 16-bit integers (native/cpu/vnni/matrix_vnni.cc) against float64: awkward shapes, magnitudes at
// the ends of float32, sums as large as they can be, values that are not finite; and bit-identical results however rows
// and tokens are divided.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "../../native/platform/half.h"
#include "format_shapes.h"
#include "random_parts.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

constexpr uint32_t kGroup = 128;
// Of a group's two norms: what rounding to integers moves a dot product by at most. Weights keep 15 bits of their norm (14
// where the factor is a power of two), activations 15.
constexpr double kWorstError = 6e-4;
// Formats whose weights are multiplied as they are, and how far their integers are from them, relative to the largest.
struct ExactFormat {
  Format format;
  double error;
};
constexpr ExactFormat kExactFormats[] = {{Format::kQ8, 0}, {Format::kU4, 0}, {Format::kQ4, 2e-5}, {Format::kNf4, 2e-5}};
constexpr float kGuard = -12345.0f;

RandomRows random_rows(11);

uint32_t uniform(uint32_t low, uint32_t high) { return random_rows.uniform(low, high); }
float normal() { return random_rows.normal(); }

struct Shape {
  uint32_t rows, columns, tokens, block;
  bool bias, row_scale, accumulate;
};

// Heap memory of exactly the size that a kernel may read or write, so that a sanitizer sees any step outside.
struct Problem {
  Shape shape;
  Format format;
  size_t row_stride, input_stride, output_stride;
  std::vector<uint8_t> weights;
  std::vector<float> input, output, bias, row_scale;
  float scale = 1.0f;

  uint8_t* row(uint32_t index) { return weights.data() + index * row_stride; }
  const uint8_t* row(uint32_t index) const { return weights.data() + index * row_stride; }
  float& at(uint32_t token, uint32_t column) { return input[token * input_stride + column]; }
  float at(uint32_t token, uint32_t column) const { return input[token * input_stride + column]; }
};

Problem make_problem(Format format, const Shape& shape) {
  Problem problem;
  problem.shape = shape;
  problem.format = format;
  const size_t bytes = row_bytes(format, shape.columns, shape.block);
  problem.row_stride = bytes + uniform(0, 2) * 5;
  problem.input_stride = shape.columns + uniform(0, 2) * 3;
  problem.output_stride = shape.rows + uniform(0, 2) * 7;
  problem.weights.assign((shape.rows - 1) * problem.row_stride + bytes, 0xff);
  for (uint32_t r = 0; r < shape.rows; ++r) random_rows.fill(format, problem.row(r), shape.columns, shape.block);
  problem.input.assign((shape.tokens - 1) * problem.input_stride + shape.columns, std::numeric_limits<float>::quiet_NaN());
  problem.output.assign((shape.tokens - 1) * problem.output_stride + shape.rows, kGuard);
  for (uint32_t t = 0; t < shape.tokens; ++t) {
    for (uint32_t c = 0; c < shape.columns; ++c) problem.at(t, c) = normal();
    for (uint32_t r = 0; r < shape.rows; ++r) problem.output[t * problem.output_stride + r] = normal();
  }
  for (uint32_t r = 0; r < shape.rows; ++r) {
    problem.bias.push_back(normal());
    problem.row_scale.push_back(normal());
  }
  if (shape.row_scale) problem.scale = 0.75f;
  return problem;
}

// Rows [row, row + rows) of tokens [token, token + tokens) into `output`, prepared run by run in descending order.
void run(const FastKernels& kernels, const Problem& problem, std::vector<float>& output, uint32_t row, uint32_t rows,
         uint32_t token, uint32_t tokens) {
  const Shape& shape = problem.shape;
  MatmulArgs args{};
  args.weight = problem.row(row);
  args.row_bytes = problem.row_stride;
  args.rows = rows;
  args.columns = shape.columns;
  args.block = shape.block;
  args.input = problem.input.data() + token * problem.input_stride;
  args.input_stride = problem.input_stride;
  args.output = output.data() + token * problem.output_stride + row;
  args.output_stride = problem.output_stride;
  args.tokens = tokens;
  args.bias = shape.bias ? problem.bias.data() + row : nullptr;
  args.row_scale = shape.row_scale ? problem.row_scale.data() + row : nullptr;
  args.scale = problem.scale;
  args.accumulate = shape.accumulate;
  const size_t bytes = kernels.prepared_bytes(problem.format, shape.block, shape.columns, tokens);
  const std::unique_ptr<uint8_t, decltype(&std::free)> prepared(
      static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), std::free);
  std::memset(prepared.get(), 0xff, bytes);
  for (uint32_t first = (tokens - 1) / kPreparedRun * kPreparedRun;; first -= kPreparedRun) {
    kernels.prepare(problem.format, args, first, std::min(first + kPreparedRun, tokens), prepared.get());
    if (first == 0) break;
  }
  std::vector<float> scratch(kernels.scratch_bytes(problem.format, shape.block, shape.columns, tokens) / sizeof(float) + 1);
  args.scratch = scratch.data() + 1;
  kernels.multiply(problem.format, args, prepared.get());
}

[[noreturn]] void fail(const Problem& problem, const char* what, uint32_t row, uint32_t token, double value, double expected) {
  const Shape& shape = problem.shape;
  fprintf(stderr, "matrix_test: %s rows=%u columns=%u tokens=%u block=%u: %s at row %u, token %u: %.9g, expected %.9g\n",
          traits_of(problem.format).name, shape.rows, shape.columns, shape.tokens, shape.block, what, row, token, value,
          expected);
  exit(1);
}

std::vector<float> run_whole(const FastKernels& kernels, const Problem& problem) {
  std::vector<float> output = problem.output;
  run(kernels, problem, output, 0, problem.shape.rows, 0, problem.shape.tokens);
  return output;
}

struct Errors {
  double squares = 0, expected_squares = 0;  // of all results together
};

// Compares `output` with float64, within `worst` of the groups' norms.
Errors check_values(const Problem& problem, const std::vector<float>& output, double worst) {
  const Shape& shape = problem.shape;
  const uint32_t groups = (shape.columns + kGroup - 1) / kGroup;
  Errors errors;
  std::vector<double> weight(shape.columns);
  for (uint32_t r = 0; r < shape.rows; ++r) {
    std::vector<double> weight_norms(groups), input_norms(groups);
    for (uint32_t c = 0; c < shape.columns; ++c) {
      weight[c] = reference::weight_value(problem.format, problem.row(r), shape.columns, shape.block, c);
      weight_norms[c / kGroup] = std::hypot(weight_norms[c / kGroup], weight[c]);
    }
    for (uint32_t t = 0; t < shape.tokens; ++t) {
      std::fill(input_norms.begin(), input_norms.end(), 0.0);
      double sum = 0;
      for (uint32_t c = 0; c < shape.columns; ++c) {
        sum += weight[c] * problem.at(t, c);
        input_norms[c / kGroup] = std::hypot(input_norms[c / kGroup], problem.at(t, c));
      }
      double bound = 0;
      for (uint32_t g = 0; g < groups; ++g) bound += worst * weight_norms[g] * input_norms[g];
      const double row_scale = shape.row_scale ? problem.row_scale[r] : 1.0;
      const double bias = shape.bias ? problem.bias[r] : 0.0;
      const size_t index = t * problem.output_stride + r;
      const double before = shape.accumulate ? problem.output[index] : 0.0;
      const double expected = (sum * row_scale + bias) * problem.scale + before;
      bound = bound * std::abs(row_scale * problem.scale) + 1e-6 * (std::abs(expected) + std::abs(bias) + std::abs(before));
      if (!(std::abs(output[index] - expected) <= bound)) fail(problem, "a wrong sum", r, t, output[index], expected);
      errors.squares += (output[index] - expected) * (output[index] - expected);
      errors.expected_squares += expected * expected;
    }
  }
  return errors;
}

void check_untouched(const Problem& problem, const std::vector<float>& output) {
  for (size_t i = 0; i < output.size(); ++i) {
    const uint32_t row = static_cast<uint32_t>(i % problem.output_stride);
    if (row < problem.shape.rows || output[i] == kGuard) continue;
    fail(problem, "a write outside the output", row, static_cast<uint32_t>(i / problem.output_stride), output[i], kGuard);
  }
}

void check_parts(const FastKernels& kernels, const Problem& problem, const std::vector<float>& whole) {
  const Shape& shape = problem.shape;
  std::vector<float> parts = problem.output;
  reference::in_random_parts(random_rows, shape.rows, shape.tokens, [&](uint32_t row, uint32_t rows, uint32_t token, uint32_t tokens) {
    run(kernels, problem, parts, row, rows, token, tokens);
  });
  const size_t i = reference::first_difference(whole, parts);
  if (i < whole.size()) {
    fail(problem, "parts differ from the whole", static_cast<uint32_t>(i % problem.output_stride),
         static_cast<uint32_t>(i / problem.output_stride), parts[i], whole[i]);
  }
}

Shape adapt(Shape shape, Format format, uint32_t index) {
  const reference::FormatShape fitting = reference::fit_format(format, shape.columns, index, random_rows);
  shape.columns = fitting.columns;
  shape.block = fitting.block;
  return shape;
}

uint32_t check_formats(const FastKernels& kernels) {
  uint32_t count = 0;
  for (uint32_t f = 0; f < kFormatCount; ++f) {
    const Format format = static_cast<Format>(f);
    std::vector<Shape> shapes = {
        {1, 1, 1, 64, false, false, false},   {5, 63, 2, 64, true, false, true},     {13, 128, 16, 64, false, true, false},
        {49, 130, 17, 64, true, true, true},  {100, 300, 33, 64, false, false, true}, {4, 2500, 70, 64, true, false, false},
    };
    for (int i = 0; i < 6; ++i) {
      shapes.push_back({uniform(1, 60), uniform(1, 700), uniform(1, 40), 64, i % 2 == 0, i % 3 == 0, i % 4 == 0});
    }
    if (format == Format::kBF16) shapes.push_back({20, 200, 600, 64, false, false, false});
    for (const Shape& shape : shapes) {
      const Problem problem = make_problem(format, adapt(shape, format, count));
      if (!kernels.supports(format, problem.shape.block, problem.shape.columns)) continue;
      const std::vector<float> whole = run_whole(kernels, problem);
      check_values(problem, whole, kWorstError);
      check_untouched(problem, whole);
      check_parts(kernels, problem, whole);
      ++count;
    }
  }
  return count;
}

Problem make_plain(Format format, uint32_t rows, uint32_t columns, uint32_t tokens,
                   const std::function<float(uint32_t, uint32_t)>& weight) {
  Problem problem = make_problem(format, {rows, columns, tokens, 64, false, false, false});
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t c = 0; c < columns; ++c) {
      const float value = weight(r, c);
      const uint16_t bits = format == Format::kF16 ? half_nearest(value) : std::bit_cast<uint32_t>(value) >> 16;
      std::memcpy(problem.row(r) + 2 * c, &bits, sizeof bits);
    }
  }
  return problem;
}

Problem make_bf16(uint32_t rows, uint32_t columns, uint32_t tokens, const std::function<float(uint32_t, uint32_t)>& weight) {
  return make_plain(Format::kBF16, rows, columns, tokens, weight);
}

// Of values drawn from a normal distribution, relative to the results' root mean square.
void check_usual_error(const FastKernels& kernels) {
  struct Usual {
    Format format;
    double error;
  };
  for (const Usual& usual : {Usual{Format::kBF16, 3.5e-5}, {Format::kF16, 4.5e-5}, {Format::kQ8_0, 5.5e-5}, {Format::kQ8, 3e-5},
                             {Format::kU4, 3e-5}, {Format::kQ4, 3.5e-5}, {Format::kNf4, 3.5e-5}}) {
    Problem problem = make_problem(usual.format, {60, 1024, 50, usual.format == Format::kQ8_0 ? 32u : 64u, false, false, false});
    if (usual.format == Format::kBF16) problem = make_bf16(60, 1024, 50, [](uint32_t, uint32_t) { return normal(); });
    const Errors errors = check_values(problem, run_whole(kernels, problem), kWorstError);
    const double relative = std::sqrt(errors.squares / errors.expected_squares);
    if (relative > usual.error) fail(problem, "too large an error on the whole", 0, 0, relative, usual.error);
  }
}

// Activations that are integers already, with as large a one in each block as there may be: nothing is rounded.
void check_exact_weights(const FastKernels& kernels) {
  for (const auto& [format, error] : kExactFormats) {
    for (const uint32_t block : {32u, 64u, 256u}) {
      if (block != 64 && traits_of(format).blocks == Blocks::kFixed) continue;
      if (!kernels.supports(format, block, 600) || (format == Format::kU4 && block < 64)) continue;
      Problem problem = make_problem(format, {50, 600, 40, block, true, false, false});
      for (uint32_t t = 0; t < 40; ++t) {
        for (uint32_t c = 0; c < 600; ++c) {
          problem.at(t, c) = c % 32 == t % 24 ? 32767.0f : static_cast<float>(uniform(0, 26000)) - 13000.0f;
        }
      }
      check_values(problem, run_whole(kernels, problem), 1e-7 + error);
    }
  }
}

// Rows and tokens that are multiples of each other: no dot product of their norms is larger.
void check_largest_sums(const FastKernels& kernels) {
  for (const Format format : {Format::kBF16, Format::kF16}) {
    for (const uint32_t nonzero : {1u, 2u, 3u, 100u, 128u}) {
      const auto wave = [&](uint32_t c) { return c % kGroup < nonzero ? (c % 3 == 0 ? -1.0f : 1.0f) : 0.0f; };
      const auto weight = [&](uint32_t r, uint32_t c) { return wave(c) * (r % 2 == 0 ? 3.0f : -0.4375f); };
      Problem problem = make_plain(format, 14, 384, 20, weight);
      for (uint32_t t = 0; t < 20; ++t) {
        for (uint32_t c = 0; c < 384; ++c) problem.at(t, c) = wave(c) * (t % 2 == 0 ? 1.1f : -7.3e3f);
      }
      check_values(problem, run_whole(kernels, problem), kWorstError);
    }
  }
}

// The same with codes of the largest magnitude, whose products are all of one sign.
void check_largest_codes(const FastKernels& kernels) {
  constexpr uint32_t kColumns = 640;
  for (const auto& [format, error] : kExactFormats) {
    for (const uint8_t byte : {0x00, 0x7f, 0x80, 0xff}) {
      for (const uint32_t nonzero : {1u, 3u, 4u, 8u, 16u, 64u}) {
        const uint32_t block = format == Format::kQ8 && nonzero % 2 == 0 ? 32 : 64;
        Problem problem = make_problem(format, {14, kColumns, 20, block, false, false, false});
        const size_t code_bytes = format == Format::kQ8 ? kColumns : kColumns / 2;
        for (uint32_t r = 0; r < 14; ++r) {
          std::memset(problem.row(r), byte, code_bytes);
          if (format == Format::kU4) std::memset(problem.row(r) + code_bytes + 2 * kColumns / block, 0xff, kColumns / block);
        }
        for (uint32_t t = 0; t < 20; ++t) {
          for (uint32_t c = 0; c < kColumns; ++c) problem.at(t, c) = c % 64 < nonzero ? (t % 2 == 0 ? 1.1f : -7.3e3f) : 0.0f;
        }
        check_values(problem, run_whole(kernels, problem), kWorstError);
      }
    }
  }
}

// Near the ends of float32, with groups of zeros and one activation that is far larger than the others.
void check_magnitudes(const FastKernels& kernels) {
  for (const float weight : {1e-38f, 1e-30f, 1.0f, 1e30f}) {
    for (const float input : {1e-30f, 1e-8f, 1.0f, 1e30f, 3e34f}) {
      if (weight * input > 1e31f || weight * input < 1e-37f) continue;
      Problem problem = make_bf16(13, 300, 18, [&](uint32_t, uint32_t c) { return c / kGroup == 1 ? 0.0f : weight * normal(); });
      for (uint32_t t = 0; t < 18; ++t) {
        for (uint32_t c = 0; c < 300; ++c) problem.at(t, c) = t == 3 ? 0.0f : input * problem.at(t, c);
        problem.at(t, 7) *= 1000.0f;
      }
      check_values(problem, run_whole(kernels, problem), kWorstError);
    }
  }
  for (const auto& [format, error] : kExactFormats) {
    for (const float input : {1e-30f, 1e-8f, 1e30f, 1e33f}) {
      Problem problem = make_problem(format, {13, 300, 18, 64, false, false, false});
      for (uint32_t t = 0; t < 18; ++t) {
        for (uint32_t c = 0; c < 300; ++c) problem.at(t, c) = c / 64 == 2 ? 0.0f : input * problem.at(t, c);
      }
      check_values(problem, run_whole(kernels, problem), kWorstError);
    }
  }
}

// A value that is not finite makes its token, or its row, NaN and leaves the others as they are.
void check_not_finite(const FastKernels& kernels) {
  std::vector<Problem> problems = {make_bf16(30, 260, 40, [](uint32_t, uint32_t) { return normal(); })};
  for (const auto& [format, error] : kExactFormats) {
    problems.push_back(make_problem(format, {30, 260, 40, 64, false, false, false}));
  }
  for (const Problem& clean : problems) {
    const bool bad_row = clean.format == Format::kBF16;
    const std::vector<float> expected = run_whole(kernels, clean);
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Problem problem = clean;
      problem.at(21, 130) = value;
      if (bad_row) std::memcpy(problem.row(17) + 2 * 5, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
      const std::vector<float> output = run_whole(kernels, problem);
      for (uint32_t t = 0; t < 40; ++t) {
        for (uint32_t r = 0; r < 30; ++r) {
          const size_t index = t * problem.output_stride + r;
          const bool is_bad = t == 21 || (bad_row && r == 17);
          const bool good = is_bad ? std::isnan(output[index]) : output[index] == expected[index];
          if (!good) fail(problem, "values that are not finite", r, t, output[index], expected[index]);
        }
      }
    }
  }
}

}  // namespace

int main() {
  const KernelTable* const table = vnni_kernels();
  if (table == nullptr || table->fast.matrix == nullptr) {
    printf("matrix_test: this processor has no such kernels\n");
    return 0;
  }
  const FastKernels& kernels = *table->fast.matrix;
  const uint32_t count = check_formats(kernels);
  check_usual_error(kernels);
  check_exact_weights(kernels);
  check_largest_sums(kernels);
  check_largest_codes(kernels);
  check_magnitudes(kernels);
  check_not_finite(kernels);
  printf("matrix_test: %u problems\n", count);
  return 0;
}
