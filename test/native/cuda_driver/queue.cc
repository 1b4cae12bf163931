#include "queue.h"

namespace layerstream::cuda_driver {

uint64_t EventState::add_record() {
  std::lock_guard lock(mutex_);
  return ++recorded_;
}

void EventState::complete(uint64_t record) {
  std::lock_guard lock(mutex_);
  if (record > completed_) completed_ = record;
  if (record == recorded_) time_ = Clock::now();
  changed_.notify_all();
}

uint64_t EventState::last_record() {
  std::lock_guard lock(mutex_);
  return recorded_;
}

void EventState::wait_for(uint64_t record) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return completed_ >= record; });
}

bool EventState::completed() {
  std::lock_guard lock(mutex_);
  return completed_ >= recorded_;
}

Clock::time_point EventState::time() {
  std::lock_guard lock(mutex_);
  return time_;
}

Queue::Queue(uint64_t delay, uint32_t seed) : delay_(delay), seed_(seed), thread_([this] { work(); }) {}

Queue::~Queue() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Queue::add(std::function<void()> command) {
  std::lock_guard lock(mutex_);
  commands_.push_back(std::move(command));
  changed_.notify_all();
}

void Queue::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return commands_.empty() && !busy_; });
}

void Queue::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ended_ || !commands_.empty(); });
    if (commands_.empty()) return;
    const std::function<void()> command = std::move(commands_.front());
    commands_.pop_front();
    busy_ = true;
    lock.unlock();
    if (delay_ > 0) {
      seed_ = seed_ * 1664525 + 1013904223;
      std::this_thread::sleep_for(std::chrono::microseconds((seed_ >> 8) % (delay_ + 1)));
    }
    command();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace layerstream::cuda_driver
