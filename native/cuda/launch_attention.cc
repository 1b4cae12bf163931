// Attention: which kernel does it, and whether positions are divided over blocks.
#include <algorithm>
#include <string>

#include "attention_limits.h"
#include "launch.h"

namespace layerstream::cuda {

namespace {

constexpr uint32_t kThreads = 128;
// Blocks for each multiprocessor from which on positions are not divided.
constexpr uint32_t kBlocks = 4;

// Whether vectors begin where four elements can be loaded at once, and are whole fours.
bool loads_fours(const AttentionOp& op, CUdeviceptr cache, uint32_t dim) {
  const uint64_t four = 4 * kv_element_bytes(op.kv_format);
  const uint64_t block = kv_block_bytes(op.kv_format, op.page_positions, dim);
  return dim % 4 == 0 && (cache | op.page_bytes | block) % four == 0;
}

// Whether the device has what kernels for prompts need, in the same way for all tokens of a model.
bool attends_prompts(const Limits& limits, const AttentionOp& op) {
  return limits.compute_capability >= 80 && prompt_shared_bytes(op.kv_format) <= limits.shared_bytes;
}

}  // namespace

void Launcher::run(const AttentionOp& op) {
  if (op.tokens == 0) return;
  const AppendedTokens appended = op.appended();
  const auto append = [&](Range source, uint32_t stride, Range cache, uint32_t dim) {
    if (appended.count == 0) return;
    AppendArguments arguments{};
    arguments.source = pointer<const float>(source) + uint64_t{appended.first} * stride;
    arguments.cache = pointer<uint8_t>(cache);
    arguments.pages = pointer<const uint32_t>(op.pages);
    arguments.page_bytes = op.page_bytes;
    arguments.stride = stride;
    arguments.dim = dim;
    arguments.page_positions = op.page_positions;
    arguments.first_position = op.first_position + appended.first;
    arguments.format = op.kv_format;
    launch("append", {appended.count, op.kv_heads}, 32, 0, arguments);
  };
  append(op.key, op.key_stride, op.key_cache, op.head_dim);
  if (!op.values_in_keys) append(op.value, op.value_stride, op.value_cache, op.value_dim);

  AttentionArguments arguments{};
  arguments.query = pointer<const float>(op.query);
  arguments.output = pointer<float>(op.output);
  arguments.keys = pointer<const uint8_t>(op.key_cache);
  arguments.values = op.values_in_keys ? arguments.keys : pointer<const uint8_t>(op.value_cache);
  arguments.pages = pointer<const uint32_t>(op.pages);
  arguments.sinks = pointer<const float>(op.sinks);
  arguments.slopes = pointer<const float>(op.slopes);
  arguments.state = pointer<float>(op.state);
  arguments.page_bytes = op.page_bytes;
  arguments.query_stride = op.query_stride;
  arguments.output_stride = op.output_stride;
  arguments.page_positions = op.page_positions;
  arguments.first_position = op.first_position;
  arguments.part_begin = op.part_begin / kSplitPositions;
  arguments.part_end = op.part_end / kSplitPositions + (op.part_end % kSplitPositions != 0);
  arguments.begins = op.begins();
  arguments.ends = op.ends();
  arguments.heads = op.heads;
  arguments.kv_heads = op.kv_heads;
  arguments.head_dim = op.head_dim;
  arguments.value_dim = op.value_dim;
  arguments.stored_dim = op.values_in_keys ? op.head_dim : op.value_dim;
  arguments.window = op.window;
  arguments.logn_length = op.logn_length;
  arguments.scale = op.scale;
  arguments.soft_cap = op.soft_cap;
  arguments.aligned = loads_fours(op, address_of(op.key_cache), op.head_dim) && op.value_dim % 4 == 0 &&
                      (op.values_in_keys || loads_fours(op, address_of(op.value_cache), op.value_dim));

  arguments.tokens = op.tokens;
  arguments.codes = op.kv_format == KvFormat::kQ8;
  const uint32_t group = op.heads / op.kv_heads;
  const std::string format(kKvFormatNames[static_cast<size_t>(op.kv_format)]);
  if (op.many_tokens && attends_prompts(stream_.limits(), op)) {
    const PromptShape shape = prompt_shape(op.value_dim);
    const auto rows = static_cast<uint32_t>((uint64_t{op.tokens} * group + kPromptRows - 1) / kPromptRows);
    const std::string name = std::string("prompt_") + (op.kv_format == KvFormat::kF32 ? "floats_" : "halves_") + std::to_string(shape.chunks);
    return launch(name.c_str(), {rows, op.kv_heads}, shape.threads, prompt_shared_bytes(op.kv_format), arguments);
  }
  const AttentionShape shape = attention_shape(group, op.value_dim);
  const uint32_t head_blocks = op.kv_heads * ((group + shape.heads - 1) / shape.heads);
  // The most that a token sees; bits do not depend on whether they are divided.
  const uint32_t part = std::min(op.end_position(), op.part_end) - std::min(op.end_position(), op.part_begin);
  const uint32_t seen = op.window == 0 ? part : std::min(part, op.window + kSplitPositions - 1);
  const uint32_t splits = std::max((seen + kSplitPositions - 1) / kSplitPositions, 1u);
  const uint64_t partial_bytes = uint64_t{op.tokens} * op.heads * splits * (op.value_dim + 2) * sizeof(float);
  const bool divided = uint64_t{op.tokens} * head_blocks < uint64_t{kBlocks} * stream_.limits().multiprocessors &&
                       partial_bytes <= kPartialBytes;
  arguments.splits = divided ? splits : 1;
  if (arguments.splits > 1) arguments.partial = reinterpret_cast<float*>(stream_.scratch(partial_bytes));
  const std::string name = "attention_" + format + "_" + std::to_string(shape.heads) + "_" + std::to_string(shape.chunks);
  launch(name.c_str(), {op.tokens, head_blocks, arguments.splits}, kThreads, attention_shared_bytes(shape, op.head_dim, op.value_dim), arguments);
  if (arguments.splits > 1) launch("merge_splits", {op.tokens, op.heads}, kThreads, 0, arguments);
}

}  // namespace layerstream::cuda
