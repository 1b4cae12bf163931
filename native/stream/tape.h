// The staging ring: one reader (a piscina worker) fills it, the pass thread takes chunks out in the same order.
//
// The reader acquires space for chunks, in order; several reads are under way side by side. A chunk gets a sequence
// number when its space is acquired and keeps it for life.
//
// All functions are safe to call from any thread. Nothing here spins.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

#include "read_meter.h"

namespace layerstream {

class Tape {
 public:
  // Chunks that may exist at once, whatever their size.
  static constexpr uint32_t kSlots = 4096;

  enum class Status : int { kDone = 0, kPaused = 1, kCancelled = 2, kFull = 3 };

  struct Chunk {
    uint64_t sequence = 0;
    uint8_t* memory = nullptr;
  };

  // `memory` holds `bytes` bytes; it and the meter outlive the tape.
  Tape(uint8_t* memory, uint64_t bytes, ReadMeter& meter)
      : ring_(memory), ring_bytes_(bytes), meter_(meter), slots_(kSlots) {}
  // Another ring. Only before the first use, or between cancel() and reset() with nobody inside.
  void set_ring(uint8_t* memory, uint64_t bytes);

  // --- reader --------------------------------------------------------------------------------------------------
  // Space for the next chunk: in the ring, or at `fixed` if given. Waits for space if `blocking`, else may return kFull;
  // returns kPaused when it would wait while the tape is idle. Throws Error{"INTERNAL"} for a chunk that no ring of this
  // size can hold.
  Status acquire(uint64_t bytes, uint8_t* fixed, bool blocking, Chunk* chunk);
  // `unread` of its bytes were not read but made from the others.
  void publish(uint64_t sequence, uint64_t unread = 0);
  // Everyone who waits for data gets this error, until reset().
  void fail(std::exception_ptr error);

  // --- consumer ------------------------------------------------------------------------------------------------
  // Waits until the chunk has been read. Throws the reader's error, or Error{"ABORTED"} after cancel().
  uint8_t* wait_ready(uint64_t sequence);
  // Whether that would not wait.
  bool is_ready(uint64_t sequence);
  // Gives the space of the oldest chunk back. In order.
  void release(uint64_t sequence);

  // --- control -------------------------------------------------------------------------------------------------
  // An idle tape reads on until the ring is full and then pauses instead of waiting; without `ahead`, it pauses at once.
  void set_idle(bool idle, bool ahead = true);
  // Makes everyone return. Stays so until reset().
  void cancel();
  // Forgets all chunks. Only when no reader and no consumer is inside. Returns the next sequence number.
  uint64_t reset();
  bool cancelled();

 private:
  struct Slot {
    uint8_t* memory = nullptr;
    uint64_t bytes = 0;
    uint64_t ring_bytes = 0;  // including the end of the ring, if it was skipped behind this chunk
    bool ready = false;
  };
  bool fits(uint64_t bytes, uint64_t* skip) const;

  uint8_t* ring_;
  uint64_t ring_bytes_;
  ReadMeter& meter_;
  uint64_t write_ = 0;  // offset in the ring
  uint64_t used_ = 0;
  std::vector<Slot> slots_;
  uint64_t next_sequence_ = 0;
  uint64_t released_ = 0;
  bool idle_ = true;
  bool ahead_ = true;
  bool cancelled_ = false;
  std::exception_ptr failure_;
  uint32_t reading_ = 0;  // chunks that are acquired and not published
  std::mutex mutex_;
  std::condition_variable space_;  // the reader
  std::condition_variable ready_;  // the consumer
};

}  // namespace layerstream
