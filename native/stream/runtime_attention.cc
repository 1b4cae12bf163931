// Attention of a block of tokens, and its keys and values on their way into the KV cache.
#include "runtime.h"
#include "step_ops.h"

namespace layerstream {

// All but what tells tokens and parts of the cache apart.
AttentionOp Runtime::attention_op(const Stage& stage, const AttentionStep& step) const {
  AttentionOp op = op_of(step, description_);
  op.query_stride = width(step.query);
  op.key_stride = width(step.key);
  op.output_stride = width(step.output);
  if (!op.values_in_keys) op.value_stride = width(step.value);
  op.sinks = vector(stage, step.sinks_vector);
  op.slopes = step.slopes;
  op.many_tokens = many_tokens_;
  return op;
}

void Runtime::set_cache(AttentionOp& op, Range cache) const {
  const uint64_t keys_bytes = description_.kv_keys_bytes();
  op.key_cache = cache;
  if (!op.values_in_keys) op.value_cache = cache.at(keys_bytes, cache.size - keys_bytes);
}

// The tokens of each segment that are in the block.
void Runtime::run_attention(uint32_t index, const AttentionStep& step, const PassRequest& request) {
  const Stage& stage = description_.stages[index];
  AttentionOp op = attention_op(stage, step);
  for (const auto& [kv, row, pages] : tokens_of_block(request, block_.first, block_.count)) {
    const auto of_tokens = [&](Register name) { return registers(name, uint64_t{row} * width(name)); };
    op.query = of_tokens(step.query);
    op.key = of_tokens(step.key);
    op.output = of_tokens(step.output);
    if (!op.values_in_keys) op.value = of_tokens(step.value);
    op.pages = pages;
    op.tokens = kv.tokens;
    op.first_position = kv.first_position;
    if (spilled_[stage.layer]) {
      run_in_parts(index, op);
    } else {
      set_cache(op, kv_cache_[stage.layer]);
      launch(op);
    }
  }
}

// With a layer's cache that is elsewhere, as it comes.
void Runtime::run_in_parts(uint32_t index, AttentionOp op) {
  op.state = attention_state_;
  do {
    const Trace::Time start = Trace::Clock::now();
    const KvPart part = spill_->take();
    count_wait(index, start);
    set_cache(op, part.cache);
    if (part.page_table.buffer != nullptr) op.pages = part.page_table;
    op.part_begin = part.begin;
    op.part_end = part.end;
    launch(op);
    spill_->finish();
  } while (!op.ends());
}

}  // namespace layerstream
