// Ops on weights: which kernels do them, and how rows and tokens are divided over blocks.
#include <algorithm>
#include <bit>
#include <string>

#include "../platform/memory.h"
#include "launch.h"

namespace layerstream::cuda {

namespace {

constexpr uint32_t kVectorWarps = 8;
// Rows that a warp multiplies at once, for one token and for more, of which it takes so many.
constexpr uint32_t kVectorRows = 4, kVectorsRows = 2, kVectorsTokens = 4;
// Columns that a warp takes at once: in every format, and where codes are indexes.
constexpr uint32_t kLeastChunk = 2048, kLeastLevelsChunk = 1024;
// Of inputs in a block's shared memory: several blocks share a multiprocessor's.
constexpr uint32_t kInputBytes = 40 << 10, kLevelsInputBytes = 28 << 10;
// Rows and tokens of a block of the kernels for many tokens.
constexpr uint32_t kExactTile = 64, kFastRows = 128, kFastTokens = 64, kTileThreads = 256;
// Tokens of a fast product whose inputs are float16 at once: bounds the memory for them.
constexpr uint32_t kPreparedTokens = 512;
// Blocks for each multiprocessor: two or three run at once, and the last ones to finish should be short.
constexpr uint32_t kBlocks = 8;

RowLayout layout_of(Format format, uint32_t columns, uint32_t block) {
  const FormatTraits& traits = traits_of(format);
  const uint64_t padding = traits.padding == 0 ? block : traits.padding;
  RowLayout layout{};
  layout.columns = columns;
  layout.block = block;
  layout.block_shift = std::has_single_bit(block) ? std::countr_zero(block) : -1;
  layout.groups = traits.group_bytes == 0 ? 0 : static_cast<uint32_t>((uint64_t{columns} + block - 1) / block);
  layout.code_bytes = static_cast<uint32_t>(align_up(columns, padding) * traits.bits / 8);
  return layout;
}

uint32_t divide_up(uint32_t value, uint32_t divisor) { return value / divisor + (value % divisor != 0); }

// Of inputs of a fast product, as two parts of float16 and a factor for each token; `columns` are whole tiles.
uint64_t half_bytes(uint32_t tokens, uint32_t columns) { return align_up(uint64_t{tokens} * columns * 4, 256); }
uint64_t prepared_bytes(uint32_t tokens, uint32_t columns) { return half_bytes(tokens, columns) + tokens * sizeof(float); }

// The tokens that are prepared at once.
uint32_t tokens_at_once(uint32_t tokens, uint32_t columns) {
  const uint64_t most = kScratchBytes / prepared_bytes(1, columns);
  return static_cast<uint32_t>(std::clamp<uint64_t>(most, 1, std::min(tokens, kPreparedTokens)));
}

uint32_t padded_columns(uint32_t columns) { return static_cast<uint32_t>(align_up(columns, 64)); }

// Of `columns` inputs in shared memory, which has gaps.
uint32_t input_bytes(uint32_t columns) { return (columns + columns / 32 * 4) * static_cast<uint32_t>(sizeof(float)); }

}  // namespace

uint64_t scratch_bytes(uint32_t columns) {
  const uint32_t padded = padded_columns(columns);
  return std::max(kPartialBytes, prepared_bytes(tokens_at_once(kPreparedTokens, padded), padded));
}

void Launcher::run(const EmbedOp& op) {
  EmbedArguments arguments{};
  arguments.row = pointer<const uint8_t>(op.row);
  arguments.output = pointer<float>(op.output);
  arguments.layout = layout_of(op.format, op.columns, op.block);
  arguments.format = op.format;
  arguments.scale = op.scale;
  // A thread decodes at least four columns; those without a unit end at once.
  launch("embed", {divide_up(static_cast<uint32_t>(align_up(op.columns, 256)), 4 * 128)}, 128, 0, arguments);
}

void Launcher::run(const MatmulOp& op) {
  MatmulArguments arguments{};
  arguments.weight = pointer<const uint8_t>(op.weight);
  arguments.row_bytes = op.row_bytes;
  arguments.input = pointer<const float>(op.input);
  arguments.output = pointer<float>(op.output);
  arguments.bias = pointer<const float>(op.bias);
  arguments.row_scale = pointer<const float>(op.row_scale);
  arguments.layout = layout_of(op.format, op.columns, op.block);
  arguments.format = op.format;
  arguments.rows = op.rows;
  arguments.tokens = op.tokens;
  arguments.input_stride = op.input_stride;
  arguments.output_stride = op.output_stride;
  arguments.scale = op.scale;
  arguments.accumulate = op.accumulate;

  if (op.many_tokens) return multiply_many(op.precision, arguments);
  multiply_few(arguments);
}

// Reads weights once for one token, or for a few.
void Launcher::multiply_few(MatmulArguments& arguments) {
  const bool one = arguments.tokens == 1;
  const uint32_t tokens = one ? 1 : kVectorsTokens, rows = one ? kVectorRows : kVectorsRows;
  const bool levels = uses_levels(arguments.format);
  const uint32_t least = levels ? kLeastLevelsChunk : kLeastChunk;
  const uint32_t most = std::max((levels ? kLevelsInputBytes : kInputBytes) / (input_bytes(least) * tokens), 1u) * least;
  arguments.chunk_columns = std::min(static_cast<uint32_t>(align_up(arguments.layout.columns, least)), most);
  const uint32_t shared_bytes = (levels ? kPairTableBytes : 0) + tokens * input_bytes(arguments.chunk_columns);
  // Rows follow one another in a warp as long as there are blocks for all multiprocessors.
  const uint32_t block_rows = kVectorWarps * rows, wanted = stream_.limits().multiprocessors * kBlocks;
  const uint32_t runs = std::max(arguments.rows / (block_rows * wanted), 1u);
  arguments.rows_per_warp = runs * rows;
  const uint32_t blocks = divide_up(arguments.rows, block_rows * runs) * divide_up(arguments.tokens, tokens);
  const std::string name = (one ? "vector_" : "vectors_") + std::string(traits_of(arguments.format).name);
  launch(name.c_str(), {blocks}, kVectorWarps * 32, shared_bytes, arguments);
}

// Bound by arithmetic: tensor cores where the device has them and the shared memory for their kernel.
void Launcher::multiply_many(Precision precision, MatmulArguments& arguments) {
  const Limits& limits = stream_.limits();
  const uint32_t rows = arguments.rows, tokens = arguments.tokens, columns = arguments.layout.columns;
  // Weights of float32 would lose bits.
  const bool fast = precision == Precision::kFast && arguments.format != Format::kF32 && limits.compute_capability >= 80 && limits.shared_bytes >= kMatrixFastSharedBytes;
  if (!fast) {
    launch("matrix_exact", {divide_up(rows, kExactTile) * divide_up(tokens, kExactTile)}, kTileThreads, 0, arguments);
    return;
  }
  const uint32_t padded = padded_columns(columns);
  const uint32_t block_tokens = tokens_at_once(tokens, padded);
  const CUdeviceptr scratch = stream_.scratch(prepared_bytes(block_tokens, padded));
  PrepareArguments prepare{};
  prepare.halves = reinterpret_cast<uint32_t*>(scratch);
  prepare.factors = reinterpret_cast<float*>(scratch + half_bytes(block_tokens, padded));
  prepare.input_stride = arguments.input_stride;
  prepare.columns = columns;
  prepare.padded_columns = padded;
  MatmulArguments block = arguments;
  block.halves = reinterpret_cast<const uint16_t*>(scratch);
  block.factors = prepare.factors;
  for (uint32_t token = 0; token < tokens; token += block_tokens) {
    block.tokens = std::min(block_tokens, tokens - token);
    prepare.input = arguments.input + uint64_t{token} * arguments.input_stride;
    block.output = arguments.output + uint64_t{token} * arguments.output_stride;
    launch("prepare_inputs", {block.tokens}, 256, 0, prepare);
    launch("matrix_fast", {divide_up(rows, kFastRows) * divide_up(block.tokens, kFastTokens)}, kTileThreads, kMatrixFastSharedBytes, block);
  }
}

}  // namespace layerstream::cuda
