#include "execute.h"

#include <algorithm>
#include <cstring>

namespace layerstream::cpu {

namespace {

template <typename T = float>
T* address(Range range) {
  return range.buffer == nullptr ? nullptr : reinterpret_cast<T*>(range.buffer->data + range.offset);
}

// Below this much work, waking another thread costs more than it saves.
constexpr uint64_t kParallelBytes = 64 << 10;
// From this many tokens on, a matrix product is bound by arithmetic.
constexpr uint32_t kPromptTokens = 8;

}  // namespace

Executor::Executor(const KernelTable& kernels, uint32_t threads)
    : kernels_(kernels), pool_(threads), scratch_(pool_.threads()) {}

float* Executor::scratch(uint32_t thread, size_t floats) {
  if (scratch_[thread].size() < floats * sizeof(float)) scratch_[thread] = Arena(floats * sizeof(float));
  return reinterpret_cast<float*>(scratch_[thread].data());
}

void Executor::execute(const Op& op) {
  std::visit([this](const auto& concrete) { run(concrete); }, op);
}

void Executor::run(const EmbedOp& op) {
  float* output = address(op.output);
  kernels_.dequantize_row[static_cast<size_t>(op.format)](address<const uint8_t>(op.row), op.columns, op.block, output);
  if (op.scale != 1.0f) {
    for (uint32_t i = 0; i < op.columns; ++i) output[i] *= op.scale;
  }
}

void Executor::run(const RmsNormOp& op) {
  const auto token = [&](uint32_t index, uint32_t) {
    kernels_.rms_norm(address(op.input) + size_t{index} * op.input_stride, address(op.output) + size_t{index} * op.output_stride,
                      address(op.weight), op.groups, op.width, op.epsilon);
  };
  if (uint64_t{op.tokens} * op.groups * op.width * sizeof(float) < kParallelBytes) {
    for (uint32_t index = 0; index < op.tokens; ++index) token(index, 0);
  } else {
    pool_.parallel_for(op.tokens, token);
  }
}

void Executor::run(const MatmulOp& op) {
  // Several parts a thread even out cores of unequal speed. With many tokens a kernel prepares its input once a call, so
  // parts stay large there.
  const bool parallel = pool_.threads() > 1 && uint64_t{op.rows} * op.row_bytes * op.tokens >= kParallelBytes;
  const uint32_t least_rows = op.tokens < kPromptTokens ? 16 : 256;
  const uint32_t even_share = parallel ? (op.rows + pool_.threads() - 1) / pool_.threads() : op.rows;
  const uint32_t part_rows = static_cast<uint32_t>(align_up(std::min(even_share, std::max(even_share / 4, least_rows)), 16));
  const uint32_t count = (op.rows + part_rows - 1) / part_rows;
  const size_t scratch_floats = matmul_scratch_floats(op.columns, op.tokens);
  for (uint32_t thread = 0; thread < pool_.threads(); ++thread) scratch(thread, scratch_floats);
  pool_.parallel_for(count, [&](uint32_t index, uint32_t thread) {
    const uint32_t first = index * part_rows;
    MatmulArgs args{};
    args.weight = address<const uint8_t>(op.weight) + first * op.row_bytes;
    args.row_bytes = op.row_bytes;
    args.rows = std::min(part_rows, op.rows - first);
    args.columns = op.columns;
    args.block = op.block;
    args.input = address(op.input);
    args.input_stride = op.input_stride;
    args.output = address(op.output) + first;
    args.output_stride = op.output_stride;
    args.tokens = op.tokens;
    args.bias = op.bias.buffer == nullptr ? nullptr : address(op.bias) + first;
    args.accumulate = op.accumulate;
    args.scratch = reinterpret_cast<float*>(scratch_[thread].data());
    kernels_.matmul[static_cast<size_t>(op.format)](args);
  });
}

void Executor::run(const RopeOp& op) {
  const uint32_t half = op.rotary_dim / 2;
  const auto token = [&](uint32_t index, uint32_t) {
    kernels_.rope(address(op.target) + size_t{index} * op.stride, op.heads, op.head_dim, op.rotary_dim,
                  address(op.cosine) + size_t{index} * half, address(op.sine) + size_t{index} * half);
  };
  if (uint64_t{op.tokens} * op.heads * op.head_dim * sizeof(float) < kParallelBytes) {
    for (uint32_t index = 0; index < op.tokens; ++index) token(index, 0);
  } else {
    pool_.parallel_for(op.tokens, token);
  }
}

void Executor::run(const AttentionOp& op) {
  const uint32_t* pages = address<const uint32_t>(op.pages);
  float* keys = address(op.key_cache);
  float* values = address(op.value_cache);
  const size_t head_bytes = op.head_dim * sizeof(float);
  for (uint32_t token = 0; token < op.tokens; ++token) {
    const uint32_t position = op.first_position + token;
    const size_t page = pages[position / op.page_positions];
    for (uint32_t head = 0; head < op.kv_heads; ++head) {
      const size_t slot = ((page * op.kv_heads + head) * op.page_positions + position % op.page_positions) * op.head_dim;
      std::memcpy(keys + slot, address(op.key) + size_t{token} * op.key_stride + head * op.head_dim, head_bytes);
      std::memcpy(values + slot, address(op.value) + size_t{token} * op.value_stride + head * op.head_dim, head_bytes);
    }
  }

  constexpr uint32_t kTokensPerPart = 32;
  const uint32_t token_parts = (op.tokens + kTokensPerPart - 1) / kTokensPerPart;
  const size_t scratch_floats = attention_scratch_floats(op.head_dim, op.page_positions);
  for (uint32_t thread = 0; thread < pool_.threads(); ++thread) scratch(thread, scratch_floats);
  const auto part = [&](uint32_t index, uint32_t thread) {
    AttentionArgs args{};
    args.query = address(op.query);
    args.query_stride = op.query_stride;
    args.output = address(op.query);
    args.output_stride = op.query_stride;
    args.heads = op.heads;
    args.kv_heads = op.kv_heads;
    args.head_dim = op.head_dim;
    args.scale = op.scale;
    args.window = op.window;
    args.first_position = op.first_position;
    args.token_begin = index / op.kv_heads * kTokensPerPart;
    args.token_end = std::min(args.token_begin + kTokensPerPart, op.tokens);
    args.kv_head = index % op.kv_heads;
    args.pages = pages;
    args.page_positions = op.page_positions;
    args.keys = keys;
    args.values = values;
    args.scratch = reinterpret_cast<float*>(scratch_[thread].data());
    kernels_.attention(args);
  };
  const uint32_t count = token_parts * op.kv_heads;
  const uint64_t bytes = uint64_t{op.tokens} * (op.first_position + op.tokens) * op.heads * head_bytes;
  if (bytes < kParallelBytes) {
    for (uint32_t index = 0; index < count; ++index) part(index, 0);
  } else {
    pool_.parallel_for(count, part);
  }
}

void Executor::run(const GatedActivationOp& op) {
  const auto token = [&](uint32_t index, uint32_t) {
    kernels_.silu_multiply(address(op.gate) + size_t{index} * op.gate_stride, address(op.up) + size_t{index} * op.up_stride, op.width);
  };
  if (uint64_t{op.tokens} * op.width * sizeof(float) < kParallelBytes || op.tokens == 1) {
    for (uint32_t index = 0; index < op.tokens; ++index) token(index, 0);
  } else {
    pool_.parallel_for(op.tokens, token);
  }
}

}  // namespace layerstream::cpu
