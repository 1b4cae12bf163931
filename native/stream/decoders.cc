#include "decoders.h"

#include <exception>

namespace layerstream {

Decoders::Decoders(uint32_t threads, Tape& tape) : tape_(tape) {
  for (uint32_t thread = 0; thread < threads; ++thread) threads_.emplace_back([this] { loop(); });
}

Decoders::~Decoders() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Decoders::submit(const Work& work) {
  std::lock_guard lock(mutex_);
  queue_[submitted_++ % queue_.size()] = work;
  changed_.notify_all();
}

void Decoders::settle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_ == submitted_; });
}

void Decoders::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || begun_ < submitted_; });
    if (begun_ == submitted_) return;
    const Work work = queue_[begun_++ % queue_.size()];
    lock.unlock();
    try {
      decode_chunk(*work.stage, *work.chunk, work.stored, work.memory, *work.path);
      tape_.publish(work.sequence, work.unread);
    } catch (...) {
      tape_.fail(std::current_exception());
    }
    lock.lock();
    ++done_;
    changed_.notify_all();
  }
}

}  // namespace layerstream
