// Slots: the device memory that a chunk occupies while ops work on it, on devices with memory of their own. A ring: chunks
// come in the order in which they are used and go in the same order, when the ops on them have run. The host never waits: the
// stream that copies a chunk into a slot waits for the last op on what was there.
//
// Everything is called by the pass thread.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend/device.h"

namespace layerstream {

class Slots {
 public:
  // Chunks that may be there at once, whatever their size.
  static constexpr uint32_t kChunks = 1024;

  // The device and its streams outlive this object; the streams have run when it goes.
  Slots(Device& device, Stream* compute, Stream* copies);
  ~Slots();
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;

  // Other memory. With clear(). Throws Error{"DEVICE_FAILED"}, and there is none then.
  void resize(uint64_t bytes);
  uint64_t bytes() const { return bytes_; }
  // Space for the next chunk, for what is enqueued next on the stream that copies. Throws Error{"INTERNAL"} where it takes that of
  // chunks that are not finished.
  Range take(uint64_t bytes);
  // The last op on the oldest chunk that has not been finished has been enqueued.
  void finish();
  // When everything that was enqueued has run: forgets all chunks.
  void clear();

 private:
  struct Chunk {
    uint64_t bytes = 0;   // including the end of the ring, if it was skipped behind this chunk
    Event* used = nullptr;  // behind the last op
  };

  Chunk& chunk(uint64_t number) { return chunks_[number % kChunks]; }
  void release_oldest();

  Device& device_;
  Stream* compute_;
  Stream* copies_;
  Buffer* memory_ = nullptr;
  uint64_t bytes_ = 0;
  std::vector<Chunk> chunks_;
  uint64_t write_ = 0;  // offset
  uint64_t used_ = 0;
  // Chunks so far. released_ <= finished_ <= taken_.
  uint64_t taken_ = 0, finished_ = 0, released_ = 0;
};

}  // namespace layerstream
