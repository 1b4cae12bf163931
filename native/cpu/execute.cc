#include "execute.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>

namespace layerstream::cpu {

namespace {

float* row(Range range, uint32_t index, uint32_t stride) { return address(range) + size_t{index} * stride; }

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

double Executor::measure_peak(PeakKind kind, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto loop = kind == PeakKind::kFloat32 ? kernels_.peak_f32 : kernels_.peak_bf16;
  if (loop == nullptr) return 0.0;
  // Some milliseconds: the fastest of them was disturbed by no other program.
  constexpr uint32_t kIterations = 1u << 20;
  const auto since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  double peak = 0.0;
  const auto begin = Clock::now();
  do {
    std::atomic<uint64_t> operations{0};
    const auto start = Clock::now();
    pool_.parallel_for(pool_.threads(), [&](uint32_t, uint32_t) { operations += loop(kIterations); });
    peak = std::max(peak, static_cast<double>(operations) / since(start));
  } while (since(begin) < seconds);
  return peak;
}

void Executor::run(const EmbedOp& op) {
  float* output = address(op.output);
  kernels_.dequantize_row[static_cast<size_t>(op.format)](address<const uint8_t>(op.row), op.columns, op.block, output);
  if (op.scale != 1.0f) {
    for (uint32_t i = 0; i < op.columns; ++i) output[i] *= op.scale;
  }
}

void Executor::run(const NormOp& op) {
  for_each_token(op.tokens, uint64_t{op.groups} * op.width, [&](uint32_t token) {
    NormArgs args{};
    args.input = row(op.input, token, op.input_stride);
    args.output = row(op.output, token, op.output_stride);
    args.weight = address(op.weight);
    args.bias = address(op.bias);
    args.groups = op.groups;
    args.width = op.width;
    args.epsilon = op.epsilon;
    args.centered = op.centered;
    args.group_weights = op.group_weights;
    args.accumulate = op.accumulate;
    kernels_.norm(args);
  });
}

void Executor::run(const RopeOp& op) {
  const uint32_t half = op.rotary_dim / 2;
  for_each_token(op.tokens, uint64_t{op.heads} * op.head_dim, [&](uint32_t token) {
    RopeArgs args{};
    args.target = row(op.target, token, op.stride);
    args.heads = op.heads;
    args.head_dim = op.head_dim;
    args.rotary_dim = op.rotary_dim;
    args.offset = op.offset;
    args.interleaved = op.interleaved;
    args.cosine = row(op.cosine, token, half);
    args.sine = row(op.sine, token, half);
    kernels_.rope(args);
  });
}

void Executor::append(const AttentionOp& op) {
  const uint32_t* pages = address<const uint32_t>(op.pages);
  const auto put = [&](Range cache, uint32_t dim, uint32_t head, uint32_t position, const float* source) {
    const uint32_t within = position % op.page_positions;
    uint8_t* block = address<uint8_t>(cache) + pages[position / op.page_positions] * op.page_bytes +
                     head * kv_block_bytes(op.kv_format, op.page_positions, dim);
    float* scales = reinterpret_cast<float*>(block + kv_scales_offset(op.page_positions, dim));
    kernels_.encode_kv(op.kv_format, source, dim, block + size_t{within} * dim * kv_element_bytes(op.kv_format), scales + within);
  };
  const uint64_t width = uint64_t{op.kv_heads} * (op.head_dim + (op.values_in_keys ? 0 : op.value_dim));
  const AppendedTokens appended = op.appended();
  for_each_token(appended.count, width, [&](uint32_t index) {
    const uint32_t token = appended.first + index, position = op.first_position + token;
    for (uint32_t head = 0; head < op.kv_heads; ++head) {
      put(op.key_cache, op.head_dim, head, position, row(op.key, token, op.key_stride) + head * op.head_dim);
      if (op.values_in_keys) continue;
      put(op.value_cache, op.value_dim, head, position, row(op.value, token, op.value_stride) + head * op.value_dim);
    }
  });
}

void Executor::run(const AttentionOp& op) {
  append(op);

  constexpr uint32_t kTokensPerPart = 32;
  const uint32_t token_parts = (op.tokens + kTokensPerPart - 1) / kTokensPerPart;
  // Query heads of one KV head are divided only where threads would else have nothing to do: each part reads its keys.
  const uint32_t group = op.heads / op.kv_heads;
  const uint32_t undivided = std::max(token_parts * op.kv_heads, 1u);
  const uint32_t least_parts = (pool_.threads() + undivided - 1) / undivided;
  const uint32_t part_heads = (group + least_parts - 1) / least_parts;
  const uint32_t head_parts = (group + part_heads - 1) / part_heads;
  const size_t scratch_floats = attention_scratch_floats(op.head_dim, op.value_dim);
  for (uint32_t thread = 0; thread < pool_.threads(); ++thread) scratch(thread, scratch_floats);
  const auto part = [&](uint32_t index, uint32_t thread) {
    const uint32_t kv_head = index / head_parts % op.kv_heads;
    AttentionArgs args{};
    args.query = address(op.query);
    args.query_stride = op.query_stride;
    args.output = address(op.output);
    args.output_stride = op.output_stride;
    args.heads = op.heads;
    args.kv_heads = op.kv_heads;
    args.head_dim = op.head_dim;
    args.value_dim = op.value_dim;
    args.scale = op.scale;
    args.soft_cap = op.soft_cap;
    args.window = op.window;
    args.logn_length = op.logn_length;
    args.first_position = op.first_position;
    args.head_begin = kv_head * group + index % head_parts * part_heads;
    args.head_end = std::min(args.head_begin + part_heads, (kv_head + 1) * group);
    args.token_begin = index / (head_parts * op.kv_heads) * kTokensPerPart;
    args.token_end = std::min(args.token_begin + kTokensPerPart, op.tokens);
    args.pages = address<const uint32_t>(op.pages);
    args.page_positions = op.page_positions;
    args.kv_format = op.kv_format;
    args.page_bytes = op.page_bytes;
    args.keys = address<const uint8_t>(op.key_cache);
    args.values = op.values_in_keys ? nullptr : address<const uint8_t>(op.value_cache);
    args.sinks = address(op.sinks);
    args.slopes = address(op.slopes);
    args.state = address(op.state);
    args.part_begin = op.part_begin;
    args.part_end = op.part_end;
    args.begins = op.begins();
    args.ends = op.ends();
    args.scratch = reinterpret_cast<float*>(scratch_[thread].data());
    kernels_.attention(args);
  };
  const uint32_t count = token_parts * op.kv_heads * head_parts;
  const uint64_t seen = std::min(op.part_end, op.end_position()) - std::min(op.part_begin, op.end_position());
  const uint64_t bytes = op.tokens * seen * op.heads * op.head_dim * sizeof(float);
  if (bytes < kParallelBytes) {
    for (uint32_t index = 0; index < count; ++index) part(index, 0);
  } else {
    pool_.parallel_for(count, part);
  }
}

void Executor::run(const ActivationOp& op) {
  for_each_token(op.tokens, op.width, [&](uint32_t token) {
    ActivationArgs args{};
    args.gate = row(op.gate, token, op.gate_stride);
    args.up = op.up.buffer == nullptr ? nullptr : row(op.up, token, op.up_stride);
    args.count = op.width;
    args.activation = op.activation;
    args.alpha = op.alpha;
    args.limit = op.limit;
    kernels_.activate(args);
  });
}

void Executor::run(const ScaleTokensOp& op) {
  for_each_token(op.tokens, op.width, [&](uint32_t token) {
    const double exponent = *row(op.factor, token, op.factor_stride);
    const auto factor = static_cast<float>(1.0 / (1.0 + std::exp(-exponent)));
    float* target = row(op.target, token, op.target_stride);
    for (uint32_t i = 0; i < op.width; ++i) target[i] *= factor;
  });
}

void Executor::run(const SoftCapOp& op) {
  for_each_token(op.tokens, op.width, [&](uint32_t token) {
    kernels_.soft_cap(row(op.target, token, op.stride), op.width, op.cap);
  });
}

void Executor::run(const GatherRowsOp& op) {
  const auto* rows = address<const uint32_t>(op.rows);
  for_each_token(op.count, op.width, [&](uint32_t i) {
    std::memcpy(row(op.output, i, op.output_stride), row(op.input, rows[i], op.input_stride), op.width * sizeof(float));
  });
}

void Executor::run(const ScatterAddOp& op) {
  const auto* rows = address<const uint32_t>(op.rows);
  const float* weights = address(op.weights);
  for_each_token(op.count, op.width, [&](uint32_t i) {
    const float* input = row(op.input, i, op.input_stride);
    float* output = row(op.output, rows[i], op.output_stride);
    for (uint32_t column = 0; column < op.width; ++column) output[column] += weights[i] * input[column];
  });
}

void Executor::run(const PermuteOp& op) {
  const auto* order = address<const uint32_t>(op.order);
  for_each_token(op.tokens, op.width, [&](uint32_t token) {
    const float* input = row(op.input, token, op.input_stride);
    float* output = row(op.output, token, op.output_stride);
    for (uint32_t column = 0; column < op.width; ++column) output[column] = input[order[column]];
  });
}

}  // namespace layerstream::cpu
