// Counts what is read from disk, and for how long at least one read was in flight, whoever reads. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>

namespace layerstream {

class ReadMeter {
 public:
  struct Counters {
    uint64_t bytes_read = 0;
    uint64_t read_nanoseconds = 0;  // time in which at least one read was in flight
  };

  void begin() {
    const std::lock_guard lock(mutex_);
    if (reading_++ == 0) since_ = now();
  }
  // `bytes`: what the read brought, 0 if it failed.
  void end(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    counters_.bytes_read += bytes;
    if (--reading_ == 0) counters_.read_nanoseconds += now() - since_;
  }
  Counters counters() {
    const std::lock_guard lock(mutex_);
    Counters counters = counters_;
    if (reading_ > 0) counters.read_nanoseconds += now() - since_;
    return counters;
  }

 private:
  static uint64_t now() {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
  }

  Counters counters_;
  uint32_t reading_ = 0;
  uint64_t since_ = 0;
  std::mutex mutex_;
};

}  // namespace layerstream
