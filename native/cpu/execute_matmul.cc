// Matrix products: which kernels do them, and how rows and tokens are divided over threads.
#include <algorithm>

#include "execute.h"

namespace layerstream::cpu {

namespace {

// From this many tokens on, a matrix product is bound by arithmetic.
constexpr uint32_t kPromptTokens = 8;
// Tokens of a fast product that are prepared at once: bounds the memory for them.
constexpr uint32_t kPreparedTokens = 512;

MatmulArgs args_of(const MatmulOp& op) {
  MatmulArgs args{};
  args.weight = address<const uint8_t>(op.weight);
  args.row_bytes = op.row_bytes;
  args.rows = op.rows;
  args.columns = op.columns;
  args.block = op.block;
  args.input = address(op.input);
  args.input_stride = op.input_stride;
  args.output = address(op.output);
  args.output_stride = op.output_stride;
  args.tokens = op.tokens;
  args.bias = address(op.bias);
  args.row_scale = address(op.row_scale);
  args.scale = op.scale;
  args.accumulate = op.accumulate;
  return args;
}

// The same product for `rows` rows from `first` on.
MatmulArgs rows_of(MatmulArgs args, uint32_t first, uint32_t rows) {
  args.weight += first * args.row_bytes;
  args.rows = rows;
  args.output += first;
  if (args.bias != nullptr) args.bias += first;
  if (args.row_scale != nullptr) args.row_scale += first;
  return args;
}

// The same product for `tokens` tokens from `first` on.
MatmulArgs tokens_of(MatmulArgs args, uint32_t first, uint32_t tokens) {
  args.input += first * args.input_stride;
  args.output += first * args.output_stride;
  args.tokens = tokens;
  return args;
}

// Weights of a part of a product that reads them once: some microseconds of work.
constexpr uint64_t kPartBytes = 128 << 10;

// Rows of one call of a kernel. Several parts a thread even out cores of unequal speed. Kernels that prepare something at
// each call want at least `least_rows`, and no thread more parts than another; 0: short parts. A multiple of `step`.
uint32_t rows_of_part(const MatmulOp& op, uint32_t threads, uint32_t least_rows, uint32_t step) {
  const bool parallel = threads > 1 && uint64_t{op.rows} * op.row_bytes * op.tokens >= kParallelBytes;
  const uint32_t even_share = parallel ? (op.rows + threads - 1) / threads : op.rows;
  const uint32_t parts = least_rows == 0 ? 1 : std::clamp(even_share / least_rows, 1u, 4u);
  const uint64_t rows = least_rows == 0 ? kPartBytes / op.row_bytes : (even_share + parts - 1) / parts;
  const uint64_t wanted = std::min<uint64_t>(even_share, std::max<uint64_t>(rows, 1));
  return static_cast<uint32_t>((wanted + step - 1) / step * step);
}

}  // namespace

const FastKernels* Executor::fast_kernels(const MatmulOp& op) const {
  if (op.precision == Precision::kExact) return nullptr;
  const FastKernels* const kernels = op.many_tokens ? kernels_.fast.matrix : kernels_.fast.vector;
  return kernels != nullptr && kernels->supports(op.format, op.block, op.columns) ? kernels : nullptr;
}

void Executor::run(const MatmulOp& op) {
  if (!op.input_kept) prepared_input_ = {};
  if (const FastKernels* const kernels = fast_kernels(op)) {
    run_fast(op, *kernels);
  } else {
    run_exact(op);
  }
}

void Executor::run_exact(const MatmulOp& op) {
  // With many tokens a kernel prepares its input once a call, so parts stay large there.
  const uint32_t part_rows = rows_of_part(op, pool_.threads(), op.tokens < kPromptTokens ? 0 : 256, 16);
  const uint32_t count = (op.rows + part_rows - 1) / part_rows;
  const size_t scratch_floats = matmul_scratch_floats(op.columns, op.tokens);
  for (uint32_t thread = 0; thread < pool_.threads(); ++thread) scratch(thread, scratch_floats);
  pool_.parallel_for(count, [&](uint32_t index, uint32_t thread) {
    const uint32_t first = index * part_rows;
    MatmulArgs args = rows_of(args_of(op), first, std::min(part_rows, op.rows - first));
    args.scratch = reinterpret_cast<float*>(scratch_[thread].data());
    kernels_.matmul[static_cast<size_t>(op.format)](args);
  });
}

void Executor::run_fast(const MatmulOp& op, const FastKernels& kernels) {
  const uint32_t block_tokens = std::min(op.tokens, kPreparedTokens);
  const size_t bytes = kernels.prepared_bytes(op.format, op.block, op.columns, block_tokens);
  if (prepared_.size() < bytes) prepared_ = Arena(bytes);
  const size_t scratch_bytes = kernels.scratch_bytes(op.format, op.block, op.columns, block_tokens);
  for (uint32_t thread = 0; thread < pool_.threads(); ++thread) scratch(thread, scratch_bytes / sizeof(float));
  const uint32_t part_rows = rows_of_part(op, pool_.threads(), kernels.least_rows, kernels.row_step);
  const uint32_t count = (op.rows + part_rows - 1) / part_rows;

  const PreparedInput input = {&kernels, op.format, op.block, address(op.input), op.input_stride, op.columns, op.tokens};
  const bool prepared = op.tokens == block_tokens && prepared_input_ == input;
  prepared_input_ = input;
  for (uint32_t token = 0; token < op.tokens; token += block_tokens) {
    const MatmulArgs block = tokens_of(args_of(op), token, std::min(block_tokens, op.tokens - token));
    const uint32_t runs = prepared ? 0 : (block.tokens + kPreparedRun - 1) / kPreparedRun;
    for_each_token(runs, uint64_t{kPreparedRun} * op.columns, [&](uint32_t index) {
      const uint32_t first = index * kPreparedRun;
      kernels.prepare(op.format, block, first, std::min(first + kPreparedRun, block.tokens), prepared_.data());
    });
    pool_.parallel_for(count, [&](uint32_t index, uint32_t thread) {
      const uint32_t first = index * part_rows;
      MatmulArgs args = rows_of(block, first, std::min(part_rows, op.rows - first));
      args.scratch = reinterpret_cast<float*>(scratch_[thread].data());
      kernels.multiply(op.format, args, prepared_.data());
    });
  }
}

}  // namespace layerstream::cpu
