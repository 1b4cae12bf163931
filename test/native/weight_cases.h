// Problems for the ops with weights, in every format: awkward shapes, every option, against float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "format_shapes.h"
#include "op_problem.h"
#include "random_parts.h"

namespace layerstream::test {

inline RandomRows weight_rows(7);

// Of a group's two norms: what Precision::kFast may move a dot product by (see matrix_test.cc).
constexpr double kFastError = 6e-4;
constexpr uint32_t kFastGroup = 128;

// Some rows of a matrix, which begins before them.
struct Rows {
  Format format;
  reference::FormatShape shape;
  uint64_t row_bytes;
  uint32_t first;
  std::vector<uint8_t> bytes;
  Region region{};

  Rows(Format format, uint32_t rows, uint32_t columns, uint32_t index)
      : format(format),
        shape(reference::fit_format(format, columns, index, weight_rows)),
        row_bytes(layerstream::row_bytes(format, shape.columns, shape.block)),
        first(uniform(0, 3)),
        bytes((first + rows) * row_bytes) {
    for (uint32_t row = 0; row < first + rows; row++) weight_rows.fill(format, &bytes[row * row_bytes], shape.columns, shape.block);
  }
  Range in(Buffer* buffer, uint32_t row, uint32_t rows) const {
    return {buffer, region.first * 4 + (first + row) * row_bytes, rows * row_bytes};
  }
  std::vector<double> values(uint32_t row) const {
    std::vector<double> result(shape.columns);
    for (uint32_t c = 0; c < shape.columns; c++) {
      result[c] = reference::weight_value(format, &bytes[(first + row) * row_bytes], shape.columns, shape.block, c);
    }
    return result;
  }
};

inline Problem make_embed(Format format, uint32_t index) {
  Rows rows(format, 1, uniform(1, 700), index);
  const uint32_t columns = rows.shape.columns, block = rows.shape.block;
  Problem problem("embed " + std::string(traits_of(format).name) + ", " + std::to_string(columns) + " columns, block " + std::to_string(block));
  const float scale = coin() ? 1.0f : 7.5f;
  rows.region = problem.add_bytes(rows.bytes);
  const Region output = problem.add(1, columns, columns);
  const std::vector<double> values = rows.values(0);
  for (uint32_t i = 0; i < columns; i++) problem.expect(output, i, values[i] * scale, 3e-7 * std::abs(values[i] * scale));
  problem.ops = [=](Buffer* buffer) {
    return std::vector<Op>{EmbedOp{format, block, columns, scale, rows.in(buffer, 0, 1), output.in(buffer)}};
  };
  return problem;
}

struct MatmulShape {
  uint32_t rows, columns, tokens;
};

// Two products with one input, the second of which says so.
inline Problem make_matmul(Format format, const MatmulShape& shape, Precision precision, uint32_t index) {
  const uint32_t row_count = shape.rows, tokens = shape.tokens;
  Rows rows(format, row_count, shape.columns, index);
  const uint32_t columns = rows.shape.columns;
  const bool accumulate = coin();
  const float scale = coin() ? 1.0f : -0.3f;
  Problem problem("matmul " + std::string(traits_of(format).name) + ", " + std::to_string(row_count) + " rows, " + std::to_string(columns) +
                  " columns, " + std::to_string(tokens) + " tokens, block " + std::to_string(rows.shape.block) +
                  (precision == Precision::kFast ? ", fast" : ""));
  rows.region = problem.add_bytes(rows.bytes);
  const uint32_t input_stride = columns + uniform(0, 5), output_stride = row_count + uniform(0, 5);
  const Region input = problem.add(tokens, columns, input_stride);
  const Region output = problem.add(tokens, row_count, output_stride), again = problem.add(tokens, row_count, row_count);
  const Region bias = problem.add_maybe(row_count), row_scale = problem.add_maybe(row_count);
  for (uint32_t r = 0; r < row_count; r++) {
    const std::vector<double> weight = rows.values(r);
    for (uint32_t t = 0; t < tokens; t++) {
      double sum = 0, magnitude = 0, rounding = 0;
      for (uint32_t begin = 0; begin < columns; begin += kFastGroup) {
        double weight_norm = 0, input_norm = 0;
        for (uint32_t c = begin; c < std::min(begin + kFastGroup, columns); c++) {
          const double x = problem.value(input, size_t{t} * input_stride + c);
          sum += weight[c] * x;
          magnitude += std::abs(weight[c] * x);
          weight_norm = std::hypot(weight_norm, weight[c]);
          input_norm = std::hypot(input_norm, x);
        }
        rounding += kFastError * weight_norm * input_norm;
      }
      const double error = 2e-6 * magnitude + (precision == Precision::kFast ? rounding : 0);
      problem.expect(again, size_t{t} * row_count + r, sum, error + 1e-30);
      const double factor = row_scale.count > 0 ? problem.value(row_scale, r) : 1, offset = bias.count > 0 ? problem.value(bias, r) : 0;
      const size_t at = size_t{t} * output_stride + r;
      const double before = accumulate ? problem.value(output, at) : 0;
      problem.expect(output, at, before + (sum * factor + offset) * scale,
                     error * std::abs(factor * scale) + 3e-7 * (std::abs(offset) + std::abs(before)) + 1e-30);
    }
  }
  MatmulOp whole{};
  whole.format = format;
  whole.block = rows.shape.block;
  whole.row_bytes = rows.row_bytes;
  whole.columns = columns;
  whole.input_stride = input_stride;
  whole.precision = precision;
  whole.many_tokens = tokens > 1 || coin();
  const auto part_of = [=](Buffer* buffer, uint32_t row, uint32_t part_rows, uint32_t token, uint32_t part_tokens) {
    const auto rows_of = [&](const Region& region) {
      return region.count == 0 ? Range{} : region.in(buffer).at(row * sizeof(float), part_rows * sizeof(float));
    };
    const auto tokens_of = [&](const Region& region, uint32_t stride, uint32_t first) {
      const uint64_t offset = (uint64_t{token} * stride + first) * sizeof(float);
      return region.in(buffer).at(offset, region.count * sizeof(float) - offset);
    };
    MatmulOp op = whole;
    op.weight = rows.in(buffer, row, part_rows);
    op.rows = part_rows;
    op.tokens = part_tokens;
    op.input = tokens_of(input, input_stride, 0);
    MatmulOp second = op;
    op.output = tokens_of(output, output_stride, row);
    op.output_stride = output_stride;
    op.bias = rows_of(bias);
    op.row_scale = rows_of(row_scale);
    op.accumulate = accumulate;
    op.scale = scale;
    second.output = tokens_of(again, row_count, row);
    second.output_stride = row_count;
    second.input_kept = true;
    return std::vector<Op>{op, second};
  };
  problem.ops = [=](Buffer* buffer) { return part_of(buffer, 0, row_count, 0, tokens); };
  problem.parts = [=](Buffer* buffer) {
    std::vector<Op> ops;
    reference::in_random_parts(weight_rows, row_count, tokens, [&](uint32_t row, uint32_t some_rows, uint32_t token, uint32_t some_tokens) {
      for (const Op& op : part_of(buffer, row, some_rows, token, some_tokens)) ops.push_back(op);
    });
    return ops;
  };
  return problem;
}

inline std::vector<Problem> make_weight_problems() {
  std::vector<Problem> problems;
  uint32_t index = 0;
  for (size_t f = 0; f < kFormatCount; f++) {
    const auto format = static_cast<Format>(f);
    for (int round = 0; round < 3; round++) problems.push_back(make_embed(format, index++));
    const MatmulShape shapes[] = {{1, 1, 1}, {5, 63, 2}, {9, 513, 1}, {70, 1030, 1}, {33, 300, 19}, {uniform(1, 300), uniform(1, 300), uniform(1, 40)}};
    for (const MatmulShape& shape : shapes) {
      for (const Precision precision : {Precision::kExact, Precision::kFast}) problems.push_back(make_matmul(format, shape, precision, index));
      index++;
    }
  }
  return problems;
}

}  // namespace layerstream::test
