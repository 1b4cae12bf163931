// Makes memory resident ahead of the reads into it: where the system takes long to provide a page, as in virtual machines,
// a read would wait for it with the disk idle. One thread may then provide less than the disk brings.
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
  Populator(Device& device, uint32_t threads) : device_(device), threads_(threads) {}
  ~Populator() { stop(); }

  // The reader will read into these ranges, in this order.
  void begin(std::vector<Range> ranges);
  // The reader has come to the next range: it is no longer ahead.
  void advance() { ++reader_; }
  // Waits for the ranges that are being made resident.
  void stop();

 private:
  void work();
  // The next range that nobody has come to, or the number of ranges.
  size_t claim();

  Device& device_;
  const size_t threads_;
  std::vector<Range> ranges_;
  std::atomic<size_t> next_ = 0;    // range that no thread has claimed
  std::atomic<size_t> reader_ = 0;  // ranges that the reader has come to
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace layerstream
