// What a Runtime allocates when it is made, and when what is held changes.
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
  for (Event*& event : block_events_) event = device_->create_event();

  const auto on_processor = [](const Stage& stage) { return stage.on_processor; };
  if (!unified_ && std::ranges::any_of(description_.stages, on_processor)) {
    processor_ = std::make_unique<Processor>(*device_, description_, trace_.get());
  }
  allocate_ring(std::exchange(description_.ring_bytes, 0));
  if (!unified_) slots_ = std::make_unique<Slots>(*device_, compute_, copies_);
  allocate_slots(std::exchange(description_.slot_bytes, 0));
  for (Stage& stage : description_.stages) commit_held(stage);
  // Before the page table, which is as long as the cache and touched at once: a cache too large fails here.
  reserve_working_memory();
  allocate_tables();
  gather_reader_ = make_reader(kGatherRows);
  load_constants(description_, alloc(constant_bytes(description_)), *device_, compute_, *gather_reader_, files_, processor_.get());
  gather_reader_->observe(trace_.get(), Track::kEmbedding);
  allocate_routing();
}

// In place of none. If it fails there is none still.
void Runtime::allocate_ring(uint64_t bytes) {
  if (bytes == 0) return;
  try {
    ring_memory_ = static_cast<uint8_t*>(device_->alloc_pinned(bytes));
    if (unified_) ring_alias_ = device_->alias_host(ring_memory_, bytes);
    if (processor_) ring_alias_ = processor_->alias(ring_memory_, bytes);
  } catch (...) {
    free_ring();
    throw;
  }
  tape_.set_ring(ring_memory_, bytes);
  description_.ring_bytes = bytes;
}

void Runtime::free_ring() {
  tape_.set_ring(nullptr, 0);
  description_.ring_bytes = 0;
  if (ring_alias_ != nullptr) (processor_ ? processor_->device() : *device_).free(std::exchange(ring_alias_, nullptr));
  if (ring_memory_ != nullptr) device_->free_pinned(std::exchange(ring_memory_, nullptr));
}

// On unified devices, chunks are used where they lie in the staging ring.
void Runtime::allocate_slots(uint64_t bytes) {
  description_.slot_bytes = 0;
  if (slots_) slots_->resize(bytes);
  description_.slot_bytes = bytes;
}

// Neighbouring chunks are committed together, so that huge pages may lie across them.
void Runtime::commit_held(Stage& stage) {
  std::vector<Chunk>& chunks = stage.chunks;
  for (Chunk& chunk : chunks) {
    if (chunk.tier != Tier::kHost || chunk.host != nullptr) continue;
    chunk.host = static_cast<uint8_t*>(device_->alloc_pinned(chunk.length));
    if (stage.on_processor && processor_) chunk.alias = processor_->alias(chunk.host, chunk.length);
  }
  for (size_t begin = 0, end = 0; begin < chunks.size(); begin = end) {
    for (end = begin + 1; end < chunks.size() && chunks[end].tier == chunks[begin].tier;) ++end;
    if (!chunks[begin].held_on_device()) continue;
    if (stage.memory == nullptr) stage.memory = device_->reserve(stage.extent_bytes);
    const uint64_t offset = chunks[begin].offset - stage.extent_offset;
    device_->commit({stage.memory, offset, chunks[end - 1].offset + chunks[end - 1].length - stage.extent_offset - offset});
  }
}

void Runtime::free_host(Chunk& chunk) {
  if (chunk.alias != nullptr) processor_->release(std::exchange(chunk.alias, nullptr));
  if (chunk.host != nullptr) device_->free_pinned(std::exchange(chunk.host, nullptr));
}

// Only what `tiers` say is held from now on. A page that two chunks share stays while one of them is held.
void Runtime::discard_held(Stage& stage, const std::vector<uint8_t>& tiers) {
  stage.held_chunks = tiers;
  mark_held(stage);
  for (Chunk& chunk : stage.chunks) {
    if (chunk.tier != Tier::kHost) free_host(chunk);
  }
  if (stage.memory == nullptr) return;
  const std::vector<Chunk>& chunks = stage.chunks;
  uint64_t kept_end = stage.extent_offset;
  const auto discard_until = [&](uint64_t end) {
    if (end > kept_end) device_->discard({stage.memory, kept_end - stage.extent_offset, end - kept_end});
  };
  for (const Chunk& chunk : chunks) {
    if (!chunk.held_on_device()) continue;
    discard_until(chunk.offset);
    kept_end = chunk.offset + chunk.length;
  }
  discard_until(stage.extent_offset + stage.extent_bytes);
}

void Runtime::allocate_tables() {
  pages_ = alloc(description_.page_count * sizeof(uint32_t));
  const EmbeddingDescription& embedding = description_.embedding;
  const uint64_t row_bytes = description_.stages[embedding.stage].matrices[embedding.matrix].row_bytes;
  const uint64_t gather_bytes = kGatherRows * (align_up(row_bytes, kPageBytes) + kPageBytes);
  gather_host_ = alloc_pinned(gather_bytes);
  gather_buffer_ = mirror(gather_host_, gather_bytes);
}

void Runtime::allocate_routing() {
  for (const Plan& plan : description_.plans) {
    for (const Step& step : plan) {
      const auto* route = std::get_if<RouteStep>(&step);
      if (route == nullptr) continue;
      routes_per_token_ = std::max(routes_per_token_, route->rule.per_token);
      routed_experts_ = std::max(routed_experts_, route->rule.experts);
      router_width_ = std::max(router_width_, width(route->logits));
    }
  }
  arriving_.reserve(routed_experts_);
  allocate_experts();
}

void Runtime::allocate_experts() {
  if (routed_experts_ == 0) return;
  experts_ = std::make_unique<Experts>(*device_, compute_, copies_, description_.stages, files_, description_.expert_ring_bytes, meter_, trace_.get());
}

}  // namespace layerstream
