// Ops on weights: where rows lie in more than one buffer, and how products are divided into work groups.
#include <algorithm>
#include <bit>

#include "../platform/memory.h"
#include "launch.h"

namespace layerstream::opencl {

namespace {

// Rows and tokens that a work group multiplies at once.
constexpr uint32_t kRows = 4;
constexpr uint32_t kTokens = 4;
// Weights of a work group on a processor: some microseconds of work.
constexpr uint64_t kGroupBytes = 64 << 10;

// How a row is laid out, as kernels take it.
struct Layout {
  int32_t block_shift;
  uint32_t groups, code_bytes;
};

Layout layout_of(Format format, uint32_t columns, uint32_t block) {
  const FormatTraits& traits = traits_of(format);
  const uint64_t padding = traits.padding == 0 ? block : traits.padding;
  Layout layout{};
  layout.block_shift = std::has_single_bit(block) ? std::countr_zero(block) : -1;
  layout.groups = traits.group_bytes == 0 ? 0 : static_cast<uint32_t>((uint64_t{columns} + block - 1) / block);
  layout.code_bytes = static_cast<uint32_t>(align_up(columns, padding) * traits.bits / 8);
  return layout;
}

// Whether 64 columns from a multiple of 64 on may have several scales.
bool short_blocks(uint32_t block, uint32_t columns) { return block % 64 != 0 && block < columns; }

}  // namespace

uint32_t Launcher::alignment(uint64_t offset, uint64_t row_bytes) const {
  // Processors load from anywhere.
  if (context_.host_processor()) return 1;
  const uint64_t both = offset | row_bytes;
  return both % 16 == 0 ? 16 : both % 4 == 0 ? 4 : 1;
}

cl_kernel Launcher::matrix_kernel(Format format, bool short_blocks, uint32_t alignment, uint32_t rows, uint32_t tokens, const char* name) {
  std::string options = "-D HOST_PROCESSOR=" + std::to_string(context_.host_processor()) + " -D SHORT_BLOCKS=" +
                        std::to_string(short_blocks) + " -D STEP_BYTES=" + std::to_string(traits_of(format).bits * 8) + " -D ALIGNMENT=" + std::to_string(alignment) + " -D LANES=" + std::to_string(lanes()) + " -D ROWS=" +
                        std::to_string(rows) + " -D TOKENS=" + std::to_string(tokens);
  for (size_t each = 0; each < kFormatCount; ++each) {
    options += std::string(" -D FORMAT_") + kFormatTraits[each].name + (each == static_cast<size_t>(format) ? "=1" : "=0");
  }
  return stream_.kernel({"common.cl", "weights.cl", "ggml.cl", "window.cl", "matmul.cl"}, options, name);
}

Operand Launcher::copied(Range range) {
  Operand found;
  memory_of(range).for_each_part(range.offset, range.size, [&](Operand part, uint64_t, uint64_t bytes) {
    found = bytes == range.size ? part : Operand{};
  });
  if (found.memory != nullptr) return found;
  found = {stream_.scratch(range.size), 0};
  stream_.copy_to_scratch(memory_of(range), range.offset, range.size, found.memory);
  return found;
}

void Launcher::run(const EmbedOp& op) {
  gather({op.output});
  const Operand row = copied(op.row);
  const Layout layout = layout_of(op.format, op.columns, op.block);
  const cl_kernel kernel = matrix_kernel(op.format, short_blocks(op.block, op.columns), 1, kRows, 1, "embed");
  set(kernel, row, op.columns, op.block, layout.block_shift, layout.groups, layout.code_bytes, op.scale, operand(op.output));
  stream_.enqueue(kernel, op.columns, 1, 64);
}

void Launcher::run(const MatmulOp& op) {
  struct Part {
    Operand operand;
    uint64_t begin, end;
  };
  gather({op.input, op.output, op.bias, op.row_scale});
  const uint64_t bytes = std::min(op.weight.size, op.rows * op.row_bytes);
  std::vector<Part> parts;
  memory_of(op.weight).for_each_part(op.weight.offset, bytes, [&](Operand operand, uint64_t begin, uint64_t size) {
    parts.push_back({operand, begin, begin + size});
  });
  uint32_t row = 0;
  for (const Part& part : parts) {
    // A row that begins in one buffer and ends in another.
    while (row < op.rows && row * op.row_bytes < part.begin) {
      const uint64_t begin = row * op.row_bytes;
      multiply(op, copied(op.weight.at(begin, std::min(op.row_bytes, bytes - begin))), row, 1);
      ++row;
    }
    const auto end = static_cast<uint32_t>(part.end == bytes ? op.rows : part.end / op.row_bytes);
    if (row >= end) continue;
    multiply(op, {part.operand.memory, part.operand.offset + row * op.row_bytes - part.begin}, row, end - row);
    row = end;
  }
}

void Launcher::multiply(const MatmulOp& op, Operand weight, uint32_t first_row, uint32_t rows) {
  const Layout layout = layout_of(op.format, op.columns, op.block);
  const uint32_t tile = op.tokens == 1 ? 1 : kTokens;
  const cl_kernel kernel = matrix_kernel(op.format, short_blocks(op.block, op.columns), alignment(weight.offset, op.row_bytes), kRows, tile, "matmul");
  const auto from_row = [&](Range range) {
    Operand whole = operand(range);
    whole.offset += first_row * sizeof(float);
    return whole;
  };
  uint32_t group_rows = kRows;
  if (context_.host_processor()) {
    const uint64_t even = rows / (4 * context_.compute_units());
    group_rows = static_cast<uint32_t>(align_up(std::clamp<uint64_t>(kGroupBytes / op.row_bytes, 1, even + 1), kRows));
  }
  set(kernel, weight, op.row_bytes, rows, group_rows, op.columns, op.block, layout.block_shift, layout.groups, layout.code_bytes,
      operand(op.input), op.input_stride, from_row(op.output), op.output_stride, from_row(op.bias), from_row(op.row_scale), op.tokens,
      op.scale, op.accumulate);
  const size_t groups = (rows + group_rows - 1) / group_rows;
  stream_.enqueue(kernel, groups * lanes(), (op.tokens + tile - 1) / tile, lanes());
}

}  // namespace layerstream::opencl
