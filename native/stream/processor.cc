#include "processor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "../platform/memory.h"

namespace layerstream {

bool Processor::takes(const RuntimeDescription& description, const Stage& stage) {
  const auto is_plain = [](const Step& step) {
    return std::holds_alternative<NormStep>(step) || std::holds_alternative<MatmulStep>(step) ||
           std::holds_alternative<ActivationStep>(step) || std::holds_alternative<SoftCapStep>(step);
  };
  const auto is_stored_so = [](const Matrix& matrix) { return !matrix.permuted() && matrix.adapters.empty(); };
  return stage.layer != kNone && !stage.routed() && std::ranges::all_of(description.plans[stage.kind], is_plain) &&
         std::ranges::all_of(stage.matrices, is_stored_so);
}

Processor::Processor(Device& device, uint32_t threads) : device_(device), processor_(open_device("cpu", {.threads = threads})) {}

Processor::Processor(Device& device, const RuntimeDescription& description, Trace* trace) : Processor(device, description.threads) {
  uint64_t bytes = 0;
  const auto place = [&](Register name) {
    const uint64_t size = uint64_t{description.register_widths[static_cast<size_t>(name)]} * kTokens * sizeof(float);
    registers_[static_cast<size_t>(name)] = {nullptr, bytes, size};
    bytes = align_up(bytes + size, kPageBytes);
  };
  place(Register::kHidden);
  place(Register::kNormed);
  for (const Register name : kMlpRegisters) place(name);
  uint64_t vector_bytes = 0;
  for (const Stage& stage : description.stages) {
    if (!stage.on_processor) continue;
    for (const Vector& vector : stage.vectors) vector_bytes += vector.length * sizeof(float);
  }
  pinned_ = static_cast<uint8_t*>(device_.alloc_pinned(bytes));
  memory_ = processor_->alias_host(pinned_, bytes);
  for (Range& range : registers_) range.buffer = range.size > 0 ? memory_ : nullptr;
  vectors_ = processor_->alloc(vector_bytes);
  stream_ = processor_->create_stream();
  for (Event*& event : events_) event = processor_->create_event();
  if (trace != nullptr) processor_->observe(stream_, trace, Track::kCompute);
}

Processor::~Processor() {
  if (stream_ != nullptr) processor_->destroy(stream_);
  for (Event* event : events_) {
    if (event != nullptr) processor_->destroy(event);
  }
  for (Buffer* buffer : {memory_, vectors_}) {
    if (buffer != nullptr) processor_->free(buffer);
  }
  if (pinned_ != nullptr) device_.free_pinned(pinned_);
}

Range Processor::put(std::span<const float> values) {
  const Range range{vectors_, vector_bytes_, values.size_bytes()};
  vector_bytes_ += values.size_bytes();
  std::memcpy(processor_->host_address(range), values.data(), values.size_bytes());
  return range;
}

bool Processor::finish_chunk() {
  processor_->record(events_[finished_ % 2], stream_);
  ++finished_;
  const bool before = std::exchange(pending_, true);
  if (before) processor_->synchronize(events_[finished_ % 2]);
  return before;
}

bool Processor::finish() {
  processor_->record(events_[finished_ % 2], stream_);
  processor_->synchronize(events_[finished_ % 2]);
  return std::exchange(pending_, false);
}

}  // namespace layerstream
