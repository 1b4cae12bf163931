// Makes memory resident ahead of the reads into it: where the system takes long to provide a page, as in virtual machines,
// a read would wait for it with the disk idle.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "../backend/device.h"

namespace layerstream {

class Populator {
 public:
  // The device outlives this object.
  explicit Populator(Device& device) : device_(device) {}
  ~Populator() { stop(); }

  // The reader will read into these ranges, in this order.
  void begin(std::vector<Range> ranges);
  // The reader has come to the next range: it is no longer ahead.
  void advance() { ++reader_; }
  // Waits for the range that is being made resident.
  void stop();

 private:
  void work();

  Device& device_;
  std::vector<Range> ranges_;
  std::atomic<size_t> reader_ = 0;  // ranges that the reader has come to
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace layerstream
