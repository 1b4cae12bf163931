// Positional reads, several in flight. A reader belongs to one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../platform/trace.h"
#include "file.h"

namespace layerstream {

struct ReadRequest {
  const WeightFile* file = nullptr;
  uint64_t offset = 0;   // multiples of kPageBytes, as is length: direct reads need it
  uint64_t length = 0;
  uint8_t* destination = nullptr;
  uint64_t tag = 0;      // handed back when the read is complete
  uint32_t stage = Trace::kNoStage;  // for the trace
};

class Reader {
 public:
  explicit Reader(uint32_t depth) : slots_(depth), free_slots_(depth) {
    for (uint32_t slot = 0; slot < depth; ++slot) free_slots_[slot] = depth - 1 - slot;
  }
  virtual ~Reader() = default;

  // Every read from now on is recorded, as of `track`, with its slot as lane. The trace outlives the reader.
  void observe(Trace* trace, Track track) {
    trace_ = trace;
    track_ = track;
  }
  // Whoever reads has waited since `begin`, with nothing in flight.
  void note_wait(Activity activity, uint32_t stage, Trace::Time begin) {
    if (trace_ != nullptr) trace_->record(track_, activity, stage, begin, Trace::Clock::now());
  }
  bool full() const { return free_slots_.empty(); }
  bool idle() const { return free_slots_.size() == slots_.size(); }
  // Requires !full().
  void submit(const ReadRequest& request);
  // Waits for one request to be read completely (short reads are continued) and returns its tag. Requires !idle().
  // Throws Error{"IO_ERROR"} naming file and offset; the request is then no longer in flight.
  uint64_t wait();
  // Waits until nothing is in flight, ignoring results: no read may write into memory that is given away.
  void drain();

 protected:
  struct Completion {
    uint32_t slot;
    int64_t result;  // bytes, or -errno
  };
  virtual void start(uint32_t slot, int descriptor, uint64_t offset, uint64_t length, uint8_t* destination) = 0;
  virtual Completion complete() = 0;

 private:
  struct Slot {
    ReadRequest request;
    uint64_t done = 0;
    Trace::Time submitted{};
  };
  void start(uint32_t slot);
  // The slot's read has brought so many bytes, or has failed: it is free again.
  void finish(uint32_t slot, uint64_t bytes);

  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  Trace* trace_ = nullptr;
  Track track_ = Track::kReader;
};

// io_uring where the kernel allows it, else pread. `reason` receives why io_uring is not in use, or stays empty.
std::unique_ptr<Reader> make_reader(uint32_t depth, std::string* reason = nullptr);
std::unique_ptr<Reader> make_pread_reader(uint32_t depth);
std::unique_ptr<Reader> make_uring_reader(uint32_t depth, std::string* reason);

}  // namespace layerstream
