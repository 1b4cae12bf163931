#include <algorithm>
#include <bit>

#include "launch.h"

namespace layerstream::opencl {

namespace {

// Of attention on a processor, that are treated at once.
constexpr uint32_t kQueries = 8;

}  // namespace

void Launcher::set_bytes(cl_kernel kernel, cl_uint& index, size_t bytes, const void* value) {
  check(context_.api().clSetKernelArg(kernel, index++, bytes, value), "clSetKernelArg");
}

void Launcher::set_one(cl_kernel kernel, cl_uint& index, const Operand& operand) {
  set_bytes(kernel, index, sizeof operand.memory, operand.memory == nullptr ? nullptr : &operand.memory);
  set_one(kernel, index, operand.offset);
}

void Launcher::set_one(cl_kernel kernel, cl_uint& index, LocalBytes local) { set_bytes(kernel, index, local.bytes, nullptr); }

Operand Launcher::operand(Range range) {
  return range.buffer == nullptr ? Operand{} : memory_of(range).whole(stream_.queue(), range.offset, range.size);
}

void Launcher::gather(std::initializer_list<Range> ranges) {
  for (const Range range : ranges) operand(range);
}

void Launcher::run(const NormOp& op) {
  gather({op.input, op.output, op.weight, op.bias});
  const cl_kernel kernel = stream_.kernel({KernelName::kNorm});
  set(kernel, operand(op.input), operand(op.output), operand(op.weight), operand(op.bias), op.width, op.input_stride, op.output_stride,
      op.epsilon, op.centered, op.group_weights, op.accumulate);
  stream_.enqueue(kernel, size_t{op.groups} * kItems, op.tokens, kItems);
}

void Launcher::run(const RopeOp& op) {
  gather({op.target, op.cosine, op.sine});
  const cl_kernel kernel = stream_.kernel({KernelName::kRope});
  set(kernel, operand(op.target), operand(op.cosine), operand(op.sine), op.stride, op.heads, op.head_dim, op.rotary_dim, op.offset,
      op.interleaved);
  stream_.enqueue(kernel, size_t{op.heads} * (op.rotary_dim / 2), op.tokens, kItems);
}

void Launcher::run(const AttentionOp& op) {
  gather({op.key_cache, op.value_cache, op.pages, op.key, op.value, op.query, op.output, op.sinks, op.slopes, op.state});
  const auto format = static_cast<uint8_t>(op.kv_format);
  const Operand keys = operand(op.key_cache), values = op.values_in_keys ? Operand{} : operand(op.value_cache);
  const Operand pages = operand(op.pages);

  const uint32_t vectors = op.kv_heads * (op.values_in_keys ? 1 : 2);
  if (const AppendedTokens appended = op.appended(); appended.count > 0) {
    const auto source = [&](Range range, uint32_t stride) {
      Operand first = operand(range);
      first.offset += uint64_t{appended.first} * stride * sizeof(float);
      return first;
    };
    const cl_kernel append = stream_.kernel({KernelName::kAppend, format});
    set(append, source(op.key, op.key_stride), source(op.value, op.value_stride), op.key_stride, op.value_stride, keys, values,
        op.page_bytes, pages, op.page_positions, op.first_position + appended.first, op.kv_heads, op.head_dim, op.value_dim, vectors);
    stream_.enqueue(append, vectors, appended.count, 8);
  }

  if (!context_.host_processor()) return attend_in_splits(op, keys, values, pages);
  const uint32_t all = op.tokens * (op.heads / op.kv_heads), queries = std::min(std::bit_ceil(all), kQueries);
  const cl_kernel attend = stream_.kernel({KernelName::kAttend, format, static_cast<uint8_t>(queries)});
  set(attend, operand(op.query), operand(op.output), op.query_stride, op.output_stride, keys, values, op.page_bytes, pages,
      op.page_positions, op.first_position, op.heads, op.kv_heads, op.head_dim, op.value_dim, op.window, op.scale, op.values_in_keys,
      op.soft_cap, op.logn_length, operand(op.sinks), operand(op.slopes), operand(op.state), op.part_begin, op.part_end, op.begins(),
      op.ends(), op.tokens, LocalBytes{queries * op.value_dim * sizeof(float)}, LocalBytes{queries * op.head_dim * sizeof(float)});
  stream_.enqueue(attend, (all + queries - 1) / queries, op.kv_heads, 1);
}

// Tokens and splits a launch are as many as have room for their results, kSplitBytes; a launch goes on from the state that the one
// before leaves.
void Launcher::attend_in_splits(const AttentionOp& op, Operand keys, Operand values, Operand pages) {
  const uint32_t group = op.heads / op.kv_heads, heads = group % 4 == 0 ? 4 : group % 2 == 0 ? 2 : 1;
  const uint32_t begin = std::max(op.begin_position(), op.part_begin), end = std::min(op.end_position(), op.part_end);
  const uint32_t first = begin / kSplitPositions, last = (end + kSplitPositions - 1) / kSplitPositions;
  const uint64_t result_bytes = op.heads * attention_state_floats(op.value_dim) * sizeof(float);  // of a token and a split, or a state
  const uint64_t results = std::max<uint64_t>(kSplitBytes / result_bytes, 2);
  const auto most_splits = static_cast<uint32_t>(std::clamp<uint64_t>(results - 1, 1, last - first));
  const auto most_tokens = static_cast<uint32_t>(std::clamp<uint64_t>(results / (most_splits + 1), 1, op.tokens));
  const cl_mem scratch = stream_.scratch(uint64_t{most_tokens} * (most_splits + 1) * result_bytes);
  const Operand splits = {scratch, most_tokens * result_bytes};
  const cl_kernel attention = stream_.kernel({KernelName::kAttention, static_cast<uint8_t>(op.kv_format), static_cast<uint8_t>(heads)});
  const cl_kernel merge = stream_.kernel({KernelName::kMergeSplits, static_cast<uint8_t>(op.kv_format), static_cast<uint8_t>(heads)});
  const auto of_token = [&](Range range, uint32_t token, uint64_t floats) {
    Operand whole = operand(range);
    whole.offset += token * floats * sizeof(float);
    return whole;
  };
  for (uint32_t token = 0; token < op.tokens; token += most_tokens) {
    const uint32_t tokens = std::min(most_tokens, op.tokens - token);
    const Operand state = op.state.buffer == nullptr ? Operand{scratch, 0} : of_token(op.state, token, result_bytes / sizeof(float));
    for (uint32_t split = first; split < last; split += most_splits) {
      const uint32_t count = std::min(most_splits, last - split);
      set(attention, of_token(op.query, token, op.query_stride), op.query_stride, keys, values, op.page_bytes, pages, op.page_positions,
          op.first_position + token, op.heads, op.kv_heads, op.head_dim, op.value_dim, op.window, op.scale, op.values_in_keys, op.soft_cap,
          op.logn_length, operand(op.slopes), op.part_begin, op.part_end, split, count, splits,
          LocalBytes{heads * op.value_dim * sizeof(float)}, LocalBytes{heads * op.head_dim * sizeof(float)});
      stream_.enqueue(attention, size_t{op.heads / heads} * count * kItems, tokens, kItems);
      set(merge, splits, count, of_token(op.output, token, op.output_stride), op.output_stride, op.heads, op.value_dim, operand(op.sinks),
          state, op.begins() && split == first, op.ends() && split + count == last);
      stream_.enqueue(merge, size_t{op.heads} * kItems, tokens, kItems);
    }
  }
}

void Launcher::run(const ActivationOp& op) {
  gather({op.gate, op.up});
  const cl_kernel kernel = stream_.kernel({KernelName::kActivation});
  set(kernel, operand(op.gate), operand(op.up), op.width, op.gate_stride, op.up_stride, static_cast<uint32_t>(op.activation), op.alpha,
      op.limit);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const ScaleTokensOp& op) {
  gather({op.target, op.factor});
  const cl_kernel kernel = stream_.kernel({KernelName::kScaleTokens});
  set(kernel, operand(op.target), operand(op.factor), op.width, op.target_stride, op.factor_stride);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const SoftCapOp& op) {
  const cl_kernel kernel = stream_.kernel({KernelName::kSoftCap});
  set(kernel, operand(op.target), op.width, op.stride, op.cap);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const GatherRowsOp& op) {
  gather({op.input, op.output, op.rows});
  const cl_kernel kernel = stream_.kernel({KernelName::kGatherRows});
  set(kernel, operand(op.input), operand(op.output), operand(op.rows), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.count, kItems);
}

void Launcher::run(const ScatterAddOp& op) {
  gather({op.input, op.output, op.rows, op.weights});
  const cl_kernel kernel = stream_.kernel({KernelName::kScatterAdd});
  set(kernel, operand(op.input), operand(op.output), operand(op.rows), operand(op.weights), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.count, kItems);
}

void Launcher::run(const PermuteOp& op) {
  gather({op.input, op.output, op.order});
  const cl_kernel kernel = stream_.kernel({KernelName::kPermute});
  set(kernel, operand(op.input), operand(op.output), operand(op.order), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

}  // namespace layerstream::opencl
