// One token's fast products against float64: at awkward shapes, with outliers, zeros and activations of any scale, within
// what the rounding of activations and of levels explains; the same bits however rows are divided.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "random_parts.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

RandomRows random_rows(11);

uint32_t uniform(uint32_t low, uint32_t high) { return random_rows.uniform(low, high); }
float normal() { return random_rows.normal(); }

// How a format's activations are rounded: `values` of the largest of `group` columns; 0: to two bfloat16.
struct Rounding {
  uint32_t group;
  double values;
  double level_error;  // of a weight, over its scale
};

Rounding rounding_of(Format format, uint32_t block) {
  if (format == Format::kBF16 || format == Format::kBF16Window) return {1, 0, 0};
  if (format == Format::kQ4) return {64, 136900.0 / 8, 0.5 / 15684};  // at worst, all of a lane are the largest
  if (format == Format::kNf4) return {64, 136900.0 / 8, 0.5 / 15684};
  if (format == Format::kU4) return {64, 32767, 3e-6};
  return {block == 32 && format == Format::kQ8 ? 32u : 64u, 32767, 0};
}

// What a level's error is relative to: a scale; of uint4, the code and the zero that almost cancel.
double level_scale(Format format, const uint8_t* row, uint32_t columns, uint32_t block, uint32_t column) {
  const size_t steps = (columns + 63) / 64;
  if (format == Format::kNf4) return std::abs(reference::read<float>(row + steps * 32 + 4 * size_t{column / 64}));
  if (format == Format::kU4) {
    const uint8_t* const scales = row + steps * 32;
    const size_t groups = (columns + block - 1) / block;
    return std::abs(reference::half_at(scales + 2 * size_t{column / block})) * (scales[2 * groups + column / block] + 15);
  }
  if (format != Format::kQ4) return 0;
  return std::abs(reference::half_at(row + steps * 32 + 2 * size_t{column / 64}));
}

enum class Input { kNormal, kOutliers, kZeroGroups, kZero, kHuge, kTiny, kSubnormal, kCount };

std::vector<float> make_input(Input kind, uint32_t columns) {
  std::vector<float> input(columns);
  for (uint32_t c = 0; c < columns; ++c) {
    float value = normal();
    if (kind == Input::kOutliers && uniform(0, 99) == 0) value *= 300;
    if (kind == Input::kZero || (kind == Input::kZeroGroups && c / 64 % 2 == 0)) value = 0;
    if (kind == Input::kHuge) value *= 1e34f;
    if (kind == Input::kTiny) value *= 1e-30f;
    if (kind == Input::kSubnormal) value *= 1e-40f;
    input[c] = value;
  }
  return input;
}

struct Problem {
  Format format;
  uint32_t rows, columns, block;
  size_t row_bytes;
  std::vector<uint8_t> weights;
  std::vector<float> input, bias, row_scale, before;
  bool accumulate;
  float scale;

  const uint8_t* row(uint32_t index) const { return weights.data() + index * row_bytes; }
};

Problem make_problem(Format format, uint32_t rows, uint32_t columns, uint32_t block, Input kind) {
  Problem problem{format, rows, columns, block, row_bytes(format, columns, block), {}, make_input(kind, columns), {}, {}, {},
                  uniform(0, 1) == 1, uniform(0, 1) == 1 ? 1.0f : -0.75f};
  problem.weights.resize(rows * problem.row_bytes);
  for (uint32_t r = 0; r < rows; ++r) random_rows.fill(format, problem.weights.data() + r * problem.row_bytes, columns, block);
  // Bias and what is added to must not hide an error: they have the size of the products.
  const float unit = columns == 0 ? 1.0f : std::abs(problem.input[0]);
  for (uint32_t r = 0; r < rows; ++r) {
    problem.bias.push_back(normal() * unit);
    problem.before.push_back(normal() * unit);
    problem.row_scale.push_back(normal());
  }
  return problem;
}

// Multiplies rows [first, first + count) into output + first, with heap memory of exactly the size for what is read.
void multiply(const FastKernels& kernels, const Problem& problem, const uint8_t* prepared, uint32_t first, uint32_t count,
              float* output) {
  const std::vector<uint8_t> weights(problem.row(first), problem.row(first) + count * problem.row_bytes);
  MatmulArgs args{};
  args.weight = weights.data();
  args.row_bytes = problem.row_bytes;
  args.rows = count;
  args.columns = problem.columns;
  args.block = problem.block;
  args.output = output + first;
  args.output_stride = problem.rows;
  args.tokens = 1;
  args.bias = problem.bias.data() + first;
  args.row_scale = problem.row_scale.data() + first;
  args.scale = problem.scale;
  args.accumulate = problem.accumulate;
  kernels.multiply(problem.format, args, prepared);
}

struct AlignedFree {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

[[noreturn]] void fail(const Problem& problem, const char* what, uint32_t row, double value, double expected, double bound) {
  fprintf(stderr, "fast_vector_test: %s rows=%u columns=%u block=%u: %s at row %u: %.9g, expected %.9g +- %.3g\n",
          traits_of(problem.format).name, problem.rows, problem.columns, problem.block, what, row, value, expected, bound);
  exit(1);
}

// Returns the largest error over the bound.
double check_problem(const FastKernels& kernels, const Problem& problem) {
  const uint32_t columns = problem.columns;
  MatmulArgs args{};
  args.columns = columns;
  args.block = problem.block;
  args.input = problem.input.data();
  args.input_stride = columns;
  args.tokens = 1;
  const size_t bytes = kernels.prepared_bytes(problem.format, problem.block, columns, 1);
  const std::unique_ptr<uint8_t, AlignedFree> prepared(
      static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  std::memset(prepared.get(), 0xff, bytes);
  kernels.prepare(problem.format, args, 0, 1, prepared.get());

  std::vector<float> whole = problem.before;
  multiply(kernels, problem, prepared.get(), 0, problem.rows, whole.data());
  const Rounding rounding = rounding_of(problem.format, problem.block);
  double largest = 0;
  for (const float x : problem.input) largest = std::max(largest, std::abs(double{x}));
  double worst = 0;
  for (uint32_t r = 0; r < problem.rows; ++r) {
    double total = 0, bound = 0;
    for (uint32_t c = 0; c < columns; ++c) {
      const double weight = reference::weight_value(problem.format, problem.row(r), columns, problem.block, c);
      const double x = problem.input[c];
      total += weight * x;
      double group_largest = 0;
      for (uint32_t i = c / rounding.group * rounding.group; i < std::min(columns, (c / rounding.group + 1) * rounding.group); ++i) {
        group_largest = std::max(group_largest, std::abs(double{problem.input[i]}));
      }
      // Half a step of the activations, half a step of the levels, and what float32 and bfloat16 round.
      const double step = rounding.values == 0 ? std::ldexp(std::abs(x), -16) : group_largest / (2 * rounding.values) * 1.001;
      bound += std::abs(weight) * step +
               rounding.level_error * level_scale(problem.format, problem.row(r), columns, problem.block, c) * group_largest +
               3e-6 * std::abs(weight * x) + 1e-12 * std::abs(weight) * largest;
    }
    const double scale = std::abs(double{problem.scale}), row_scale = problem.row_scale[r];
    double expected = (total * row_scale + problem.bias[r]) * problem.scale;
    if (problem.accumulate) expected += problem.before[r];
    bound = bound * scale * std::abs(row_scale) + 3e-7 * (std::abs(problem.bias[r]) + std::abs(problem.before[r])) + 3e-45;
    const double error = std::abs(whole[r] - expected);
    if (!(error <= bound) && !(std::abs(expected) > 3.4e38)) fail(problem, "a wrong sum", r, whole[r], expected, bound);
    worst = std::max(worst, error / bound);
  }

  std::vector<float> parts = problem.before;
  reference::in_random_parts(random_rows, problem.rows, 1, [&](uint32_t row, uint32_t rows, uint32_t, uint32_t) {
    multiply(kernels, problem, prepared.get(), row, rows, parts.data());
  });
  const auto r = static_cast<uint32_t>(reference::first_difference(whole, parts));
  if (r < problem.rows) fail(problem, "parts differ from the whole", r, parts[r], whole[r], 0);
  return worst;
}

// Scaling all activations by a power of two scales the results by it, to the bit.
void check_scaling(const FastKernels& kernels, Format format, uint32_t block) {
  Problem problem = make_problem(format, 5, 256, block, Input::kNormal);
  problem.accumulate = false;
  std::fill(problem.bias.begin(), problem.bias.end(), 0.0f);
  const auto run = [&](float factor) {
    Problem scaled = problem;
    for (float& x : scaled.input) x *= factor;
    MatmulArgs args{};
    args.columns = scaled.columns;
    args.block = block;
    args.input = scaled.input.data();
    args.tokens = 1;
    const size_t bytes = kernels.prepared_bytes(format, block, scaled.columns, 1);
    const std::unique_ptr<uint8_t, AlignedFree> prepared(
        static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
    kernels.prepare(format, args, 0, 1, prepared.get());
    std::vector<float> output(scaled.rows);
    multiply(kernels, scaled, prepared.get(), 0, scaled.rows, output.data());
    return output;
  };
  const std::vector<float> plain = run(1.0f);
  for (const int exponent : {-90, -20, 1, 100}) {
    const std::vector<float> scaled = run(std::ldexp(1.0f, exponent));
    for (uint32_t r = 0; r < problem.rows; ++r) {
      const float expected = std::ldexp(plain[r], exponent);
      if (scaled[r] != expected) fail(problem, "a result that depends on the scale", r, scaled[r], expected, 0);
    }
  }
  for (const float wrong : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    problem.input[77] = wrong;
    for (const float value : run(1.0f)) {
      if (!std::isnan(value)) fail(problem, "a number from an input that is none", 77, value, wrong, 0);
    }
  }
}

void check_format(const FastKernels& kernels, Format format) {
  const FormatTraits& traits = traits_of(format);
  std::vector<uint32_t> blocks = {traits.block};
  if (traits.blocks == Blocks::kPowerOfTwo) blocks = {32, 64, 128, 1024};
  if (traits.blocks == Blocks::kMultiple) blocks = {64, 128, 192, 4096};
  if (traits.blocks == Blocks::kEscapes) blocks = {1, 31, 90};
  const uint32_t unit = traits.blocks == Blocks::kWhole ? traits.block : 1;
  uint32_t count = 0;
  double worst = 0;
  for (const uint32_t block : blocks) {
    for (uint32_t kind = 0; kind < static_cast<uint32_t>(Input::kCount); ++kind) {
      for (const uint32_t columns : {1u, 31u, 32u, 63u, 64u, 65u, 96u, 129u, 192u, 513u, 1000u, 1024u, 1087u, 2113u}) {
        const uint32_t whole = (columns + unit - 1) / unit * unit;
        if (!block_fits(format, whole, block) || !kernels.supports(format, block, whole)) continue;
        const Problem problem = make_problem(format, uniform(1, 21), whole, block, static_cast<Input>(kind));
        worst = std::max(worst, check_problem(kernels, problem));
        ++count;
      }
    }
    if (kernels.supports(format, block, 256)) check_scaling(kernels, format, block);
  }
  printf("fast_vector_test: %s: %u problems, at most %.2f of the bound\n", traits.name, count, worst);
}

}  // namespace

int main() {
  const KernelTable* const kernels = vnni_kernels();
  if (kernels == nullptr || kernels->fast.vector == nullptr) {
    printf("fast_vector_test: this processor has no fast products\n");
    return 0;
  }
  for (uint32_t f = 0; f < kFormatCount; ++f) {
    const auto format = static_cast<Format>(f);
    const uint32_t block = traits_of(format).block == 0 ? 64 : traits_of(format).block;
    if (kernels->fast.vector->supports(format, block, 256)) check_format(*kernels->fast.vector, format);
  }
  return 0;
}
