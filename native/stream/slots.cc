#include "slots.h"

#include <string>
#include <utility>

#include "../platform/error.h"

namespace layerstream {

Slots::Slots(Device& device, Stream* compute, Stream* copies) : device_(device), compute_(compute), copies_(copies), chunks_(kChunks) {}

Slots::~Slots() {
  for (const Chunk& chunk : chunks_) {
    if (chunk.used != nullptr) device_.destroy(chunk.used);
  }
  if (memory_ != nullptr) device_.free(memory_);
}

void Slots::resize(uint64_t bytes) {
  clear();
  if (bytes == bytes_) return;
  bytes_ = 0;
  if (memory_ != nullptr) device_.free(std::exchange(memory_, nullptr));
  if (bytes > 0) memory_ = device_.alloc(bytes);
  bytes_ = bytes;
}

Range Slots::take(uint64_t bytes) {
  const auto skip = [&] { return write_ + bytes > bytes_ ? bytes_ - write_ : 0; };
  if (bytes > bytes_) {
    throw Error("INTERNAL", "A chunk of " + std::to_string(bytes) + " bytes never fits in slots of " + std::to_string(bytes_) + ".");
  }
  while (taken_ - released_ == kChunks || used_ + skip() + bytes > bytes_) release_oldest();
  if (write_ + bytes > bytes_) {
    // The end of the ring comes free with the chunk before it.
    chunk(taken_ - 1).bytes += skip();
    used_ += skip();
    write_ = 0;
  }
  Chunk& taken = chunk(taken_++);
  taken.bytes = bytes;
  used_ += bytes;
  const Range range{memory_, write_, bytes};
  write_ += bytes;
  return range;
}

void Slots::finish() {
  Chunk& finished = chunk(finished_);
  if (finished.used == nullptr) finished.used = device_.create_event();
  device_.record(finished.used, compute_);
  ++finished_;
}

void Slots::release_oldest() {
  if (released_ == finished_) {
    throw Error("INTERNAL", "Slots of " + std::to_string(bytes_) + " bytes do not hold the chunks that are in use together.");
  }
  const Chunk& oldest = chunk(released_++);
  device_.wait(copies_, oldest.used);
  used_ -= oldest.bytes;
  // An empty ring starts over, so that a chunk as large as the ring always finds a place.
  if (used_ == 0) write_ = 0;
}

void Slots::clear() {
  write_ = used_ = 0;
  finished_ = released_ = taken_;
}

}  // namespace layerstream
