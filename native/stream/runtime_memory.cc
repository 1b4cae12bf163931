// What a Runtime allocates, all of it when it is made.
#include <algorithm>
#include <utility>

#include "../platform/memory.h"
#include "constants.h"
#include "runtime.h"

namespace layerstream {

Range Runtime::alloc(uint64_t bytes) {
  if (bytes == 0) return {};
  Buffer* buffer = device_->alloc(bytes);
  buffers_.push_back(buffer);
  return {buffer, 0, bytes};
}

uint8_t* Runtime::alloc_pinned(uint64_t bytes) {
  pinned_.push_back(device_->alloc_pinned(bytes));
  return static_cast<uint8_t*>(pinned_.back());
}

// Device memory for what is in pinned memory: on a unified device, the same.
Buffer* Runtime::mirror(uint8_t* host, uint64_t bytes) {
  if (!unified_) return alloc(bytes).buffer;
  buffers_.push_back(device_->alias_host(host, bytes));
  return buffers_.back();
}

void Runtime::allocate() {
  compute_ = device_->create_stream();
  if (!unified_) copies_ = device_->create_stream();
  if (trace_) {
    device_->observe(compute_, trace_.get(), Track::kCompute);
    if (copies_ != nullptr) device_->observe(copies_, trace_.get(), Track::kCopies);
  }
  for (uint32_t slot = 0; slot < Tape::kSlots; ++slot) chunk_events_.push_back(device_->create_event());
  copied_ = device_->create_event();
  finished_ = device_->create_event();
  for (Event*& event : stage_events_) event = device_->create_event();

  allocate_ring();
  for (Stage& stage : description_.stages) commit_held(stage);
  allocate_registers();
  // Before the page table, which is as long as the cache and touched at once: a cache too large fails here.
  kv_layer_bytes_ = description_.page_count * description_.kv_page_bytes();
  kv_cache_ = alloc(kv_layer_bytes_ * description_.kv_layers);
  allocate_tables();
  gather_reader_ = make_reader(kGatherRows);
  load_constants(description_, alloc(constant_bytes(description_)), *device_, compute_, *gather_reader_, files_);
  gather_reader_->observe(trace_.get(), Track::kEmbedding);
  allocate_routing();
}

void Runtime::allocate_ring() {
  if (description_.ring_bytes == 0) return;
  ring_memory_ = static_cast<uint8_t*>(device_->alloc_pinned(description_.ring_bytes));
  ring_slots_ = unified_ ? device_->alias_host(ring_memory_, description_.ring_bytes) : device_->alloc(description_.ring_bytes);
  tape_.set_ring(ring_memory_, description_.ring_bytes);
}

void Runtime::free_ring() {
  tape_.set_ring(nullptr, 0);
  if (ring_slots_ != nullptr) device_->free(std::exchange(ring_slots_, nullptr));
  if (ring_memory_ != nullptr) device_->free_pinned(std::exchange(ring_memory_, nullptr));
}

// Neighbouring chunks are committed together, so that huge pages may lie across them.
void Runtime::commit_held(Stage& stage) {
  const std::vector<Chunk>& chunks = stage.chunks;
  for (size_t begin = 0, end = 0; begin < chunks.size(); begin = end) {
    for (end = begin + 1; end < chunks.size() && chunks[end].held == chunks[begin].held;) ++end;
    if (!chunks[begin].held) continue;
    if (stage.memory == nullptr) stage.memory = device_->reserve(stage.extent_bytes);
    const uint64_t offset = chunks[begin].offset - stage.extent_offset;
    device_->commit({stage.memory, offset, chunks[end - 1].offset + chunks[end - 1].length - stage.extent_offset - offset});
  }
}

// Only `flags` are held from now on. A page that two chunks share stays while one of them is held.
void Runtime::discard_held(Stage& stage, const std::vector<uint8_t>& flags) {
  stage.held_chunks = flags;
  mark_held(stage);
  if (stage.memory == nullptr) return;
  const std::vector<Chunk>& chunks = stage.chunks;
  uint64_t kept_end = stage.extent_offset;
  const auto discard_until = [&](uint64_t end) {
    if (end > kept_end) device_->discard({stage.memory, kept_end - stage.extent_offset, end - kept_end});
  };
  for (const Chunk& chunk : chunks) {
    if (!chunk.held) continue;
    discard_until(chunk.offset);
    kept_end = chunk.offset + chunk.length;
  }
  discard_until(stage.extent_offset + stage.extent_bytes);
}

// Registers of attention and those of MLPs share memory: no stage uses both.
void Runtime::allocate_registers() {
  const uint64_t tokens = description_.max_tokens;
  const auto bytes = [&](Register name) { return width(name) * tokens * sizeof(float); };
  const auto total = [&](std::span<const Register> names) {
    uint64_t sum = 0;
    for (const Register name : names) sum += bytes(name);
    return sum;
  };
  for (const Register name : {Register::kHidden, Register::kNormed}) registers_[static_cast<size_t>(name)] = alloc(bytes(name));
  const Range scratch = alloc(std::max(total(kAttentionRegisters), total(kMlpRegisters)));
  for (const std::span<const Register> names : {std::span<const Register>(kAttentionRegisters), std::span<const Register>(kMlpRegisters)}) {
    uint64_t offset = 0;
    for (const Register name : names) {
      registers_[static_cast<size_t>(name)] = scratch.at(offset, bytes(name));
      offset += bytes(name);
    }
  }

  uint64_t columns = 0, rank = 0;
  for (const Stage& stage : description_.stages) {
    for (const Matrix& matrix : stage.matrices) {
      if (matrix.permuted()) columns = std::max<uint64_t>(columns, matrix.columns);
      for (const Adapter& adapter : matrix.adapters) rank = std::max<uint64_t>(rank, adapter.rank);
    }
  }
  permuted_ = alloc(columns * tokens * sizeof(float));
  adapted_ = alloc(rank * tokens * sizeof(float));
}

void Runtime::allocate_tables() {
  uint64_t table_bytes = description_.page_count * sizeof(uint32_t);
  pages_ = alloc(table_bytes);
  for (const uint32_t rotary_dim : description_.rope_dims) {
    const uint64_t size = uint64_t{description_.max_tokens} * rotary_dim / 2 * sizeof(float);
    cosines_.push_back(alloc(size));
    sines_.push_back(alloc(size));
    table_bytes += 2 * size;
  }
  tables_host_ = alloc_pinned(table_bytes);
  const EmbeddingDescription& embedding = description_.embedding;
  const uint64_t row_bytes = description_.stages[embedding.stage].matrices[embedding.matrix].row_bytes;
  const uint64_t gather_bytes = kGatherRows * (align_up(row_bytes, kPageBytes) + kPageBytes);
  gather_host_ = alloc_pinned(gather_bytes);
  gather_buffer_ = mirror(gather_host_, gather_bytes);
}

void Runtime::allocate_routing() {
  uint64_t entries = 0, logits = 0;
  uint32_t experts = 0;
  for (const Plan& plan : description_.plans) {
    for (const Step& step : plan) {
      const auto* route = std::get_if<RouteStep>(&step);
      if (route == nullptr) continue;
      entries = std::max(entries, uint64_t{description_.max_tokens} * route->rule.per_token);
      logits = std::max(logits, uint64_t{description_.max_tokens} * width(route->logits));
      experts = std::max(experts, route->rule.experts);
    }
  }
  if (experts == 0) return;
  router_.reserve(experts, entries);
  arriving_.reserve(experts);
  if (!unified_) router_logits_ = reinterpret_cast<float*>(alloc_pinned(logits * sizeof(float)));
  static_assert(sizeof(uint32_t) == sizeof(float));
  const uint64_t bytes = entries * sizeof(float);
  uint8_t* host = alloc_pinned(2 * bytes);
  Buffer* tables = mirror(host, 2 * bytes);
  rows_host_ = reinterpret_cast<uint32_t*>(host);
  weights_host_ = reinterpret_cast<float*>(host + bytes);
  rows_ = {tables, 0, bytes};
  weights_ = {tables, bytes, bytes};
  experts_ = std::make_unique<Experts>(*device_, compute_, copies_, description_.stages, files_, description_.expert_ring_bytes, meter_, trace_.get());
}

}  // namespace layerstream
