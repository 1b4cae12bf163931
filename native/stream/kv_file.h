// Layers of the KV cache in a temporary file, on unified devices: a thread reads the pages of one after the other into the buffers
// and writes back what the pass has changed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../io/spill_file.h"
#include "../platform/trace.h"
#include "kv_spill.h"
#include "read_meter.h"

namespace layerstream {

class KvFile final : public KvSpill {
 public:
  // The device is unified. It, the stream, the meter and the trace (null where nobody asked) outlive this object; the stream
  // is destroyed first.
  KvFile(Device& device, Stream* compute, std::string directory, const KvLayout& layout, ReadMeter& meter, Trace* trace);
  ~KvFile() override;
  KvFile(const KvFile&) = delete;
  KvFile& operator=(const KvFile&) = delete;

  void use_pages(std::span<const uint8_t> pages) override;
  void store(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void load(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void begin(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens) override;
  // A whole layer, for all tokens: waits until it is there.
  KvPart take() override;
  void finish() override;
  void end() override;
  void abort() override;
  Counters counters() override;

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
  const uint32_t pages_, page_positions_;
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
  size_t tokens_ = 0;       // of each layer: so often it is taken
  uint64_t taken_ = 0, finished_ = 0;
  // Layers of the pass that have been read, used by attention, and written back. written_ <= used_ <= read_.
  uint64_t read_ = 0, used_ = 0, written_ = 0;
  Counters counters_;
  std::thread thread_;
};

}  // namespace layerstream
