// What passes touch: registers and tables with an entry a token. All of it is address space from the start; a
// part costs memory once it is committed and used.
#include <algorithm>
#include <string>
#include <utility>

#include "../platform/error.h"
#include "../platform/memory.h"
#include "runtime.h"

namespace layerstream {

void Runtime::reserve_working_memory() {
  for (const Stage& stage : description_.stages) {
    for (const Matrix& matrix : stage.matrices) {
      if (matrix.permuted()) permuted_columns_ = std::max(permuted_columns_, matrix.columns);
      for (const Adapter& adapter : matrix.adapters) adapter_rank_ = std::max(adapter_rank_, adapter.rank);
    }
  }
  // Of unified devices, a layer's cache has one part.
  for (const Plan& plan : description_.plans) {
    for (const Step& step : plan) {
      const auto* attention = std::get_if<AttentionStep>(&step);
      if (attention == nullptr || unified_) continue;
      const auto floats = static_cast<uint32_t>(attention->heads * attention_state_floats(attention->value_dim));
      attention_state_width_ = std::max(attention_state_width_, floats);
    }
  }
  register_bytes_ = lay_out_registers(description_.max_tokens);
  register_memory_ = reserve(register_bytes_).buffer;
  reserve_kv_cache();
}

Range Runtime::reserve(uint64_t bytes) {
  if (bytes == 0) return {};
  buffers_.push_back(device_->reserve(bytes));
  return {buffers_.back(), 0, bytes};
}

// For passes of so many tokens, close together, so that what they use is one part of the memory. Registers of attention
// and those of MLPs share theirs: no stage uses both. Returns the end.
uint64_t Runtime::lay_out_registers(uint32_t tokens) {
  const auto place = [&](uint64_t floats, uint32_t rows, uint64_t& offset) {
    const Range range{register_memory_, offset, floats * rows * sizeof(float)};
    offset = align_up(offset + range.size, kPageBytes);
    return range;
  };
  const uint32_t rows = block_rows(tokens);
  const auto place_register = [&](Register name, uint64_t& offset) {
    registers_[static_cast<size_t>(name)] = place(width(name), pass_wide(name) ? tokens : rows, offset);
  };
  uint64_t shared = 0;
  for (const Register name : {Register::kHidden, Register::kNormed}) place_register(name, shared);
  uint64_t attention_end = shared, mlp_end = shared;
  for (const Register name : kAttentionRegisters) place_register(name, attention_end);
  for (const Register name : kMlpRegisters) place_register(name, mlp_end);
  attention_state_ = place(attention_state_width_, rows, attention_end);
  uint64_t end = std::max(attention_end, mlp_end);
  permuted_ = place(permuted_columns_, rows, end);
  adapted_ = place(adapter_rank_, rows, end);
  cosines_.clear();
  sines_.clear();
  for (const uint32_t rotary_dim : description_.rope_dims) {
    cosines_.push_back(place(rotary_dim / 2, tokens, end));
    sines_.push_back(place(rotary_dim / 2, tokens, end));
  }
  return end;
}

void Runtime::set_working_memory(uint32_t tokens, std::span<const uint8_t> pages, uint32_t kv_layers) {
  if (tokens == 0 || tokens > description_.max_tokens) {
    throw Error("INTERNAL", "The model has no room for passes of " + std::to_string(tokens) + " tokens.");
  }
  // What is committed costs nothing before it is used, so what may fail comes first.
  const uint64_t used = lay_out_registers(tokens);
  try {
    device_->commit({register_memory_, 0, used});
    set_kv_cache(pages, kv_layers);
  } catch (...) {
    lay_out_registers(tokens_);
    throw;
  }
  device_->discard({register_memory_, used, register_bytes_ - used});
  tokens_ = tokens;
}

// Pinned tables that have an entry for every token of a pass; when a pass begins, for as many tokens as it may have.
void Runtime::allocate_token_tables() {
  if (table_tokens_ == tokens_) return;
  free_token_tables();
  uint64_t table_bytes = description_.page_count * sizeof(uint32_t);
  for (const uint32_t rotary_dim : description_.rope_dims) table_bytes += uint64_t{tokens_} * rotary_dim * sizeof(float);
  tables_host_ = static_cast<uint8_t*>(device_->alloc_pinned(table_bytes));
  if (experts_) {
    router_.reserve(routed_experts_, uint64_t{tokens_} * routes_per_token_);
    if (!unified_) {
      const uint64_t logits = uint64_t{tokens_} * router_width_;
      router_logits_ = static_cast<float*>(device_->alloc_pinned(logits * sizeof(float)));
    }
    static_assert(sizeof(uint32_t) == sizeof(float));
    const uint64_t bytes = uint64_t{tokens_} * routes_per_token_ * sizeof(float);
    routes_host_ = static_cast<uint8_t*>(device_->alloc_pinned(2 * bytes));
    routes_ = unified_ ? device_->alias_host(routes_host_, 2 * bytes) : device_->alloc(2 * bytes);
    rows_host_ = reinterpret_cast<uint32_t*>(routes_host_);
    weights_host_ = reinterpret_cast<float*>(routes_host_ + bytes);
    rows_ = {routes_, 0, bytes};
    weights_ = {routes_, bytes, bytes};
  }
  table_tokens_ = tokens_;
}

void Runtime::free_token_tables() {
  table_tokens_ = 0;
  if (tables_host_ != nullptr) device_->free_pinned(std::exchange(tables_host_, nullptr));
  if (router_logits_ != nullptr) device_->free_pinned(std::exchange(router_logits_, nullptr));
  if (routes_ != nullptr) device_->free(std::exchange(routes_, nullptr));
  if (routes_host_ != nullptr) device_->free_pinned(std::exchange(routes_host_, nullptr));
}

}  // namespace layerstream
