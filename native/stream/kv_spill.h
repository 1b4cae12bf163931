// The part of the KV cache that does not fit in memory: whole layers, in a temporary file.
//
// In a pass, a thread reads the pages of one such layer after the other into two buffers, as far ahead as these allow, and
// writes back the pages that the pass has changed. So a layer's attention finds its cache in memory, as others do.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../backend/device.h"
#include "../io/spill_file.h"
#include "../platform/trace.h"
#include "read_meter.h"

namespace layerstream {

// Neighbouring pages: the first, and how many.
using PageRun = std::pair<uint32_t, uint32_t>;

// A layer of the cache and the stage that attends with it.
struct SpilledLayer {
  uint32_t layer = 0, stage = 0;
};

// Runs of the pages in `pages`, in any order.
std::vector<PageRun> page_runs(std::vector<uint32_t> pages);

class KvSpill {
 public:
  // Of all transfers so far. They do not overlap one another.
  struct Counters {
    uint64_t read_bytes = 0, read_nanoseconds = 0;
    uint64_t written_bytes = 0, write_nanoseconds = 0;
  };

  // The device is unified. It, the stream, the meter and the trace (null where nobody asked) outlive this object; the stream
  // is destroyed first.
  KvSpill(Device& device, Stream* compute, std::string directory, uint32_t pages, uint64_t page_bytes, ReadMeter& meter, Trace* trace);
  ~KvSpill();
  KvSpill(const KvSpill&) = delete;
  KvSpill& operator=(const KvSpill&) = delete;

  // --- between passes --------------------------------------------------------------------------------------------
  // These pages (a flag each) are used from now on; the buffers' memory for others is given back.
  void use_pages(std::span<const uint8_t> pages);
  // Pages of a layer, from its whole cache at `memory` to the file, or back. Throw Error{"KV_SPILL_FAILED"}.
  void store(uint32_t layer, const uint8_t* memory, std::span<const PageRun> runs);
  void load(uint32_t layer, uint8_t* memory, std::span<const PageRun> runs);

  // --- a pass ----------------------------------------------------------------------------------------------------
  // Attention of these layers comes in this order; it needs the pages of `reads` and changes those of `writes`.
  void begin(std::vector<SpilledLayer> layers, std::vector<PageRun> reads, std::vector<PageRun> writes);
  // The cache of the next of these layers. Waits until it is there; throws what reading or writing before threw.
  Range take();
  // The last op on what was taken has been enqueued.
  void finish();
  // Waits until everything is written. Throws what writing threw.
  void end();
  // After an error, when all ops have run: forgets the pass. Layers that were written stay so.
  void abort();

  // Any thread.
  Counters counters();

 private:
  static constexpr uint32_t kBuffers = 2;

  void release();
  void loop();
  bool can_read() const { return active_ && read_ < layers_.size() && read_ < written_ + kBuffers; }
  bool can_write() const { return active_ && written_ < used_; }
  // Of the layer, for the stage that the trace names.
  void read_pages(SpilledLayer of, uint8_t* memory, std::span<const PageRun> runs);
  void write_pages(SpilledLayer of, const uint8_t* memory, std::span<const PageRun> runs);
  void count(Activity activity, uint32_t stage, Trace::Time begin, uint64_t bytes);
  uint8_t* buffer(uint64_t number) { return static_cast<uint8_t*>(device_.host_address(buffers_[number % kBuffers])); }

  Device& device_;
  Stream* compute_;
  const uint32_t pages_;
  const uint64_t page_bytes_;
  ReadMeter& meter_;
  Trace* trace_;
  SpillFile file_;
  Range buffers_[kBuffers];
  Event* used_events_[kBuffers] = {};

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool active_ = false;  // a pass is under way
  bool busy_ = false;    // the thread reads or writes
  std::exception_ptr failure_;
  std::vector<SpilledLayer> layers_;
  std::vector<PageRun> reads_, writes_;
  uint64_t taken_ = 0;
  // Layers of the pass that have been read, used by attention, and written back. written_ <= used_ <= taken_ <= read_.
  uint64_t read_ = 0, used_ = 0, written_ = 0;
  Counters counters_;
  std::thread thread_;
};

}  // namespace layerstream
