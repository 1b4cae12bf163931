#include "tape.h"

#include <string>

#include "../platform/error.h"

namespace layerstream {

void Tape::set_ring(uint8_t* memory, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  ring_ = memory;
  ring_bytes_ = bytes;
}

bool Tape::fits(uint64_t bytes, uint64_t* skip) const {
  *skip = write_ + bytes > ring_bytes_ ? ring_bytes_ - write_ : 0;
  return used_ + *skip + bytes <= ring_bytes_;
}

Tape::Status Tape::acquire(uint64_t bytes, uint8_t* fixed, bool blocking, Chunk* chunk) {
  if (fixed == nullptr && bytes > ring_bytes_) {
    throw Error("INTERNAL", "A chunk of " + std::to_string(bytes) + " bytes never fits in a staging ring of " +
                                std::to_string(ring_bytes_) + ".");
  }
  std::unique_lock lock(mutex_);
  uint64_t skip = 0;
  const auto has_space = [&] {
    if (idle_ && !ahead_) return false;
    if (next_sequence_ - released_ >= kSlots) return false;
    return fixed != nullptr || fits(bytes, &skip);
  };
  if (!cancelled_ && !failure_ && !has_space()) {
    if (!blocking) return Status::kFull;
    space_.wait(lock, [&] { return cancelled_ || failure_ || has_space() || idle_; });
  }
  if (cancelled_ || failure_) return Status::kCancelled;
  if (!has_space()) return Status::kPaused;
  Slot& slot = slots_[next_sequence_ % kSlots];
  slot = {};
  slot.bytes = bytes;
  if (fixed != nullptr) {
    slot.memory = fixed;
  } else {
    if (write_ + bytes > ring_bytes_) {
      // The end of the ring that is skipped comes free with the chunk before it.
      slots_[(next_sequence_ - 1) % kSlots].ring_bytes += skip;
      write_ = 0;
    }
    slot.memory = ring_ + write_;
    slot.ring_bytes = bytes;
    write_ += bytes;
    used_ += bytes + skip;
  }
  *chunk = {next_sequence_++, slot.memory};
  ++reading_;
  meter_.begin();
  return Status::kDone;
}

void Tape::publish(uint64_t sequence, uint64_t unread) {
  std::lock_guard lock(mutex_);
  Slot& slot = slots_[sequence % kSlots];
  slot.ready = true;
  --reading_;
  meter_.end(slot.bytes - unread);
  ready_.notify_all();
}

void Tape::fail(std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
  ready_.notify_all();
  space_.notify_all();
}

uint8_t* Tape::wait_ready(uint64_t sequence) {
  std::unique_lock lock(mutex_);
  const Slot& slot = slots_[sequence % kSlots];
  ready_.wait(lock, [&] { return cancelled_ || failure_ || (sequence < next_sequence_ && slot.ready); });
  if (failure_) std::rethrow_exception(failure_);
  if (cancelled_) throw Error("ABORTED", "The pass was aborted.");
  return slot.memory;
}

bool Tape::is_ready(uint64_t sequence) {
  std::lock_guard lock(mutex_);
  return sequence < next_sequence_ && slots_[sequence % kSlots].ready;
}

void Tape::release(uint64_t sequence) {
  std::lock_guard lock(mutex_);
  used_ -= slots_[sequence % kSlots].ring_bytes;
  released_ = sequence + 1;
  // An empty ring starts over, so that a chunk as large as the ring always finds a place.
  if (used_ == 0) write_ = 0;
  space_.notify_all();
}

void Tape::set_idle(bool idle, bool ahead) {
  std::lock_guard lock(mutex_);
  idle_ = idle;
  ahead_ = ahead;
  space_.notify_all();
}

void Tape::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  ready_.notify_all();
  space_.notify_all();
}

bool Tape::cancelled() {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

uint64_t Tape::reset() {
  std::lock_guard lock(mutex_);
  write_ = used_ = 0;
  released_ = next_sequence_;
  for (; reading_ > 0; --reading_) meter_.end(0);
  cancelled_ = false;
  failure_ = nullptr;
  return next_sequence_;
}

}  // namespace layerstream
