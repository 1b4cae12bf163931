// The staging ring and the order in which it is filled and emptied.
//
// Readers (piscina workers) take turns by tape position: the reader of position p acquires space for its chunks, in
// order, before the reader of p + 1 may; their reads then run side by side. The consumer waits for chunks in the same
// order. A chunk gets a sequence number when its space is acquired and keeps it for life.
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

  // --- readers -------------------------------------------------------------------------------------------------
  // Waits for the turn of `position`. kDone: it is this reader's turn, and `first_chunk` says where an earlier reader
  // of this position paused.
  Status begin(uint64_t position, uint32_t* first_chunk);
  // Space for the next chunk of the position whose turn it is: in the ring, or at `fixed` if given. Waits for space if
  // `blocking`, else may return kFull; returns kPaused when it would wait while the tape is idle. Throws
  // Error{"INTERNAL"} for a chunk that no ring of this size can hold.
  Status acquire(uint64_t bytes, uint8_t* fixed, bool blocking, Chunk* chunk);
  // The position is acquired completely; the next one's turn begins.
  void end();
  void publish(uint64_t sequence);
  // Everyone who waits for data gets this error, until reset().
  void fail(std::exception_ptr error);

  // --- consumer ------------------------------------------------------------------------------------------------
  // Waits until the chunk has been read. Throws the reader's error, or Error{"ABORTED"} after cancel().
  uint8_t* wait_ready(uint64_t sequence);
  // Gives the space of the oldest chunk back. In order.
  void release(uint64_t sequence);

  // --- control -------------------------------------------------------------------------------------------------
  // An idle tape reads on until the ring is full and then pauses instead of waiting.
  void set_idle(bool idle);
  // Makes everyone return. Stays so until reset().
  void cancel();
  // Forgets all chunks; the next position is 0. Only when no reader and no consumer is inside. Returns the next
  // sequence number.
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
  uint64_t position_ = 0;
  uint32_t position_chunk_ = 0;
  bool idle_ = true;
  bool paused_ = false;  // the reader whose turn it is has left
  bool cancelled_ = false;
  std::exception_ptr failure_;
  uint32_t reading_ = 0;  // chunks that are acquired and not published
  std::mutex mutex_;
  std::condition_variable space_;  // readers
  std::condition_variable ready_;  // the consumer
};

}  // namespace layerstream
