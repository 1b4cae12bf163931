// The processor beside a device with memory of its own: stages that are placed on it run where their weights are, in pinned
// memory, in passes of a few tokens. Their `hidden` goes there and comes back.
//
// Everything is called by the pass thread.
#pragma once

#include <memory>
#include <span>

#include "model.h"

namespace layerstream {

class Processor {
 public:
  // Whether a stage can be placed here: neither attention nor experts, no column orders and no adapters.
  static bool takes(const RuntimeDescription& description, const Stage& stage);
  // Tokens of a pass that it takes: products of more are worth the copy of the weights.
  static constexpr uint32_t kTokens = 16;

  // The object is complete once the other constructor returns: what fails here is undone by the destructor. `device` outlives
  // it, as does the trace, which may be null. Throws Error{"DEVICE_FAILED"}.
  Processor(Device& device, const RuntimeDescription& description, Trace* trace);
  // What it has enqueued has run.
  ~Processor();
  Processor(const Processor&) = delete;
  Processor& operator=(const Processor&) = delete;

  Device& device() { return *processor_; }
  Stream* stream() { return stream_; }
  // Registers of stages without attention, [kTokens, width].
  Range registers(Register name) const { return registers_[static_cast<size_t>(name)]; }
  // The same memory, pinned.
  uint8_t* address(Register name) const { return pinned_ + registers(name).offset; }
  // As memory of the processor; released by it.
  Buffer* alias(uint8_t* memory, uint64_t bytes) { return processor_->alias_host(memory, bytes); }
  void release(Buffer* alias) { processor_->free(alias); }
  // The next of the norm weights and biases of stages that are placed here.
  Range put(std::span<const float> values);

  // The ops on a chunk that is to leave the tape have been enqueued. Returns after those on the chunk before it have run, so
  // that there is always something to do; whether there was one.
  bool finish_chunk();
  // Everything has run; whether a chunk was left.
  bool finish();
  uint64_t busy_nanoseconds() { return processor_->busy_nanoseconds(stream_); }

 private:
  Processor(Device& device, uint32_t threads);

  Device& device_;
  std::unique_ptr<Device> processor_;
  Stream* stream_ = nullptr;
  Event* events_[2] = {};
  uint64_t finished_ = 0;
  bool pending_ = false;  // a chunk's event has been recorded and not been waited for
  uint8_t* pinned_ = nullptr;
  Buffer* memory_ = nullptr;
  Buffer* vectors_ = nullptr;
  uint64_t vector_bytes_ = 0;  // that have been put there
  Range registers_[kRegisterCount];
};

}  // namespace layerstream
