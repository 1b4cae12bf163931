// Attention of a block of tokens, and its keys and values on their way into the KV cache.
#include <algorithm>

#include "runtime.h"
#include "step_ops.h"

namespace layerstream {

// All but what tells segments apart.
AttentionOp Runtime::attention_op(uint32_t index, const AttentionStep& step) {
  AttentionOp op = op_of(step, description_);
  op.query_stride = width(step.query);
  op.key_stride = width(step.key);
  op.output_stride = width(step.output);
  op.key_cache = take_layer_cache(index);
  if (!op.values_in_keys) {
    op.value_stride = width(step.value);
    const uint64_t keys_bytes = description_.kv_keys_bytes();
    op.value_cache = op.key_cache.at(keys_bytes, op.key_cache.size - keys_bytes);
  }
  op.sinks = vector(description_.stages[index], step.sinks_vector);
  op.slopes = step.slopes;
  return op;
}

// The tokens of each segment that are in the block.
void Runtime::run_attention(uint32_t index, const AttentionStep& step, const PassRequest& request) {
  AttentionOp op = attention_op(index, step);
  uint32_t segment_begin = 0;
  uint64_t first_page = 0;
  for (const Segment& segment : request.segments) {
    const uint32_t segment_end = segment_begin + segment.tokens;
    const uint32_t begin = std::max(segment_begin, block_.first), end = std::min(segment_end, block_.first + block_.count);
    if (begin < end) {
      const auto of_tokens = [&](Register name) { return registers(name, uint64_t{begin - block_.first} * width(name)); };
      op.query = of_tokens(step.query);
      op.key = of_tokens(step.key);
      op.output = of_tokens(step.output);
      if (!op.values_in_keys) op.value = of_tokens(step.value);
      op.pages = pages_.at(first_page * sizeof(uint32_t), segment.pages.size() * sizeof(uint32_t));
      op.tokens = end - begin;
      op.first_position = segment.first_position + begin - segment_begin;
      launch(op);
    }
    segment_begin = segment_end;
    first_page += segment.pages.size();
  }
  finish_layer_cache(description_.stages[index].layer);
}

}  // namespace layerstream
