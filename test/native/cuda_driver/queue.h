// Streams and events of the emulated device: a stream is a thread that runs commands one after the other.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace layerstream::cuda_driver {

using Clock = std::chrono::steady_clock;

class EventState {
 public:
  explicit EventState(bool timed) : timed(timed) {}

  const bool timed;
  // A record that has been enqueued; its number.
  uint64_t add_record();
  void complete(uint64_t record);
  uint64_t last_record();
  void wait_for(uint64_t record);
  bool completed();  // of the last record
  // Of the last record that has completed.
  Clock::time_point time();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t recorded_ = 0, completed_ = 0;
  Clock::time_point time_{};
};

class Queue {
 public:
  // Before each command up to `delay` microseconds pass.
  explicit Queue(uint64_t delay, uint32_t seed);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  void add(std::function<void()> command);
  void drain();

 private:
  void work();

  const uint64_t delay_;
  uint32_t seed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> commands_;
  bool busy_ = false, ended_ = false;
  std::thread thread_;
};

}  // namespace layerstream::cuda_driver
