// Ops on weights: where rows lie in more than one buffer, and how products are divided into work groups.
#include <algorithm>
#include <bit>

#include "../platform/memory.h"
#include "launch.h"

namespace layerstream::opencl {

namespace {

// Tokens that a work group multiplies at once, where there are several, and those that are prepared at once.
constexpr uint32_t kGpuTokens = 4;
constexpr uint32_t kProcessorTokens = 8;
constexpr uint32_t kIntegerTokens = 16;
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

// Bytes of a token's integers and scales (kernels/integers.cl), and the steps of 64 columns that they stand for.
constexpr uint32_t padded_steps(uint32_t columns) { return static_cast<uint32_t>((uint64_t{columns} + 1023) / 1024 * 16); }
constexpr uint64_t prepared_bytes(uint32_t columns) { return padded_steps(columns) * (64 * sizeof(int16_t) + 2 * sizeof(float)); }

// Whether weights can be multiplied as integers: of four bits, no two scales in 64 columns.
bool has_integers(Format format, uint32_t block, uint32_t columns) {
  if (format == Format::kU4) return block >= columns || (block >= 64 && std::has_single_bit(block));
  return format == Format::kQ4 || format == Format::kNf4;
}

bool takes_integers(const Context& context, const MatmulOp& op) {
  return op.precision == Precision::kFast && !op.many_tokens && context.has_wide_words() && has_integers(op.format, op.block, op.columns);
}

// Tokens that a work group multiplies at once.
uint32_t tile_of(const Context& context, uint32_t tokens) {
  return tokens == 1 ? 1 : context.host_processor() ? kProcessorTokens : kGpuTokens;
}

KernelKey key_of(KernelName name, Format format, uint32_t block, uint32_t columns, uint32_t tokens, uint32_t alignment) {
  const bool short_blocks = block % 64 != 0 && block < columns;
  return {name, static_cast<uint8_t>(format), static_cast<uint8_t>(tokens), static_cast<uint8_t>(alignment), short_blocks};
}

}  // namespace

uint32_t Launcher::alignment(uint64_t offset, uint64_t row_bytes) const {
  // Processors load from anywhere.
  if (context_.host_processor()) return 1;
  const uint64_t both = offset | row_bytes;
  return both % 16 == 0 ? 16 : both % 4 == 0 ? 4 : 1;
}

Operand Launcher::copied(Range range) {
  Operand found = memory_of(range).in_one(range.offset, range.size);
  if (found.memory != nullptr) return found;
  found = {stream_.scratch(range.size), 0};
  stream_.copy_to_scratch(memory_of(range), range.offset, range.size, found.memory);
  return found;
}

void Launcher::run(const EmbedOp& op) {
  gather({op.output});
  const Operand row = copied(op.row);
  const Layout layout = layout_of(op.format, op.columns, op.block);
  const cl_kernel kernel = stream_.kernel(key_of(KernelName::kEmbed, op.format, op.block, op.columns, 1, 1));
  set(kernel, row, op.columns, op.block, layout.block_shift, layout.groups, layout.code_bytes, op.scale, operand(op.output));
  stream_.enqueue(kernel, op.columns, 1, 64);
}

uint64_t Launcher::scratch_bytes(const Context& context, uint32_t columns) {
  // A row of weights that lies in two buffers, which a float32 row is at most.
  const uint64_t row = uint64_t{columns} * sizeof(float);
  if (!context.host_processor()) return std::max(row, kSplitBytes);
  return context.has_wide_words() ? row + kIntegerTokens * prepared_bytes(columns) : row;
}

Operand Launcher::prepare(const MatmulOp& op) {
  PreparedInput& before = stream_.prepared_input();
  if (!op.input_kept) before = {};
  if (!takes_integers(context_, op)) return {};
  const cl_kernel kernel = stream_.kernel(key_of(KernelName::kPrepareIntegers, op.format, op.block, op.columns, tile_of(context_, op.tokens), 1));
  if (kernel == nullptr) return {};
  const uint32_t padded = padded_steps(op.columns);
  const Operand prepared = {stream_.prepared(op.tokens * prepared_bytes(op.columns)), 0}, input = operand(op.input);
  const PreparedInput now = {op.format, input.memory, input.offset, op.input_stride, op.columns, op.tokens};
  if (before == now) return prepared;
  before = now;
  set(kernel, input, op.input_stride, op.columns, padded, prepared);
  stream_.enqueue(kernel, padded / 2, op.tokens, 1);
  return prepared;
}

void Launcher::run(const MatmulOp& op) {
  if (op.tokens > kIntegerTokens && takes_integers(context_, op)) {
    for (uint32_t first = 0; first < op.tokens; first += kIntegerTokens) {
      MatmulOp part = op;
      part.tokens = std::min(kIntegerTokens, op.tokens - first);
      const uint64_t input = uint64_t{first} * op.input_stride * sizeof(float), output = uint64_t{first} * op.output_stride * sizeof(float);
      part.input = op.input.at(input, op.input.size - input);
      part.output = op.output.at(output, op.output.size - output);
      part.input_kept = false;
      run(part);
    }
    return;
  }
  gather({op.input, op.output, op.bias, op.row_scale});
  const Operand prepared = prepare(op);
  const uint64_t bytes = std::min(op.weight.size, op.rows * op.row_bytes);
  const Operand whole = memory_of(op.weight).in_one(op.weight.offset, bytes);
  if (whole.memory != nullptr) return multiply(op, whole, prepared, 0, op.rows);
  struct Part {
    Operand operand;
    uint64_t begin, end;
  };
  std::vector<Part> parts;
  memory_of(op.weight).for_each_part(op.weight.offset, bytes, [&](Operand operand, uint64_t begin, uint64_t size) {
    parts.push_back({operand, begin, begin + size});
  });
  uint32_t row = 0;
  for (const Part& part : parts) {
    // A row that begins in one buffer and ends in another.
    while (row < op.rows && row * op.row_bytes < part.begin) {
      const uint64_t begin = row * op.row_bytes;
      multiply(op, copied(op.weight.at(begin, std::min(op.row_bytes, bytes - begin))), prepared, row, 1);
      ++row;
    }
    const auto end = static_cast<uint32_t>(part.end == bytes ? op.rows : part.end / op.row_bytes);
    if (row >= end) continue;
    multiply(op, {part.operand.memory, part.operand.offset + row * op.row_bytes - part.begin}, prepared, row, end - row);
    row = end;
  }
}

void Launcher::multiply(const MatmulOp& op, Operand weight, Operand prepared, uint32_t first_row, uint32_t rows) {
  const Layout layout = layout_of(op.format, op.columns, op.block);
  const uint32_t tile = tile_of(context_, op.tokens);
  const bool integers = prepared.memory != nullptr;
  const cl_kernel kernel = stream_.kernel(key_of(integers ? KernelName::kMultiplyIntegers : KernelName::kMatmul, op.format, op.block,
                                                 op.columns, tile, alignment(weight.offset, op.row_bytes)));
  const auto from_row = [&](Range range) {
    Operand whole = operand(range);
    whole.offset += first_row * sizeof(float);
    return whole;
  };
  const uint32_t rows_together = rows_at_once(tile);
  uint32_t group_rows = rows_together;
  if (context_.host_processor()) {
    const uint64_t even = rows / (4 * context_.compute_units());
    group_rows = static_cast<uint32_t>(align_up(std::clamp<uint64_t>(kGroupBytes / op.row_bytes, 1, even + 1), rows_together));
  }
  const Operand input = integers ? prepared : operand(op.input);
  set(kernel, weight, op.row_bytes, rows, group_rows, op.columns, op.block, layout.block_shift, layout.groups, layout.code_bytes, input,
      integers ? padded_steps(op.columns) : op.input_stride, from_row(op.output), op.output_stride, from_row(op.bias),
      from_row(op.row_scale), op.tokens, op.scale, op.accumulate);
  const size_t groups = (rows + group_rows - 1) / group_rows;
  stream_.enqueue(kernel, groups * lanes(), (op.tokens + tile - 1) / tile, lanes());
}

}  // namespace layerstream::opencl
