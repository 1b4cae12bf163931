// Routed experts on their way from disk to the pass thread, and the place for what may be known about them in advance.
//
// An expert is read because a token chose it, so the pass thread itself starts the reads: of the first chunks as soon as
// the choice is known, and of each later one when a place is free, across experts. A place holds one chunk and is read
// into again when the ops on its last chunk have run. Held experts are read into their own memory when they are first
// chosen; those in pinned memory are copied from there through places. Everything is called by the pass thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "../backend/device.h"
#include "../io/file.h"
#include "../io/reader.h"
#include "model.h"
#include "read_meter.h"

namespace layerstream {

class Experts {
 public:
  // The chunks of all stages have been cut. `copies` is null on a unified device, `trace` where nobody asked for one.
  // Everything outlives this object.
  // Throws Error{"INTERNAL"} when a chunk does not fit in `ring_bytes`, Error{"DEVICE_FAILED"} when memory does not last.
  Experts(Device& device, Stream* compute, Stream* copies, std::span<const Stage> stages, std::span<const WeightFile> files,
          uint64_t ring_bytes, ReadMeter& meter, Trace* trace);
  ~Experts();
  Experts(const Experts&) = delete;
  Experts& operator=(const Experts&) = delete;

  // These stages will be taken, chunk by chunk, in this order. Starts to read. Ops on all chunks before have run.
  void begin(std::span<const uint32_t> stages);
  // Waits for the next chunk: what is enqueued on the compute stream may use it from then on. Throws Error{"IO_ERROR"}.
  Range take();
  // The last op on the chunk that was taken has been enqueued.
  void finish();
  // After an error, when all ops have run: waits for reads in flight and forgets what was begun.
  void drain();

 private:
  struct Place {
    uint8_t* host = nullptr;  // where a chunk is read to, unless it is read in place; compressed ones behind their place
    uint8_t* memory = nullptr;  // where it is once it is ready
    Range device{};           // what ops see of it
    Event* used = nullptr;    // behind the last op on the chunk
    const Stage* stage = nullptr;
    const Chunk* chunk = nullptr;
    uint64_t known = 0;       // bytes at the front of a held chunk that the chunk before brings
    bool ready = false;
  };

  Experts(Device& device, Stream* compute, Stream* copies, std::span<const Stage> stages, std::span<const WeightFile> files,
          ReadMeter& meter, Trace* trace);
  uint32_t index_of(const Stage& stage) const { return static_cast<uint32_t>(&stage - stages_.data()); }
  Place& place(uint64_t sequence) { return places_[sequence % places_.size()]; }
  void read_ahead();
  void read(uint64_t sequence, const Stage& stage, size_t chunk);
  void arrive(Place& arrived);

  Device& device_;
  Stream* compute_;
  Stream* copies_;
  std::span<const Stage> stages_;
  std::span<const WeightFile> files_;
  ReadMeter& meter_;
  Trace* trace_;
  uint8_t* memory_ = nullptr;
  Buffer* buffer_ = nullptr;   // alias of `memory_`, or its mirror in device memory
  Event* copied_ = nullptr;
  std::vector<Place> places_;
  std::unique_ptr<Reader> reader_;
  uint32_t reading_ = 0;       // reads in flight
  std::vector<uint32_t> wanted_;
  size_t wanted_index_ = 0;    // of the next chunk to read
  size_t chunk_index_ = 0;
  // Chunks are numbered in the order in which they are taken. free_ <= taken_ <= read_ <= free_ + places.
  uint64_t read_ = 0;
  uint64_t taken_ = 0;
  uint64_t free_ = 0;          // the ops on all chunks before this one have run
};

}  // namespace layerstream
