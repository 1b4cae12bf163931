#include "decoders.h"

#include <exception>

namespace layerstream {

Decoders::Decoders(uint32_t threads, Tape& tape, Trace* trace) : tape_(tape), trace_(trace) {
  for (uint32_t thread = 0; thread < threads; ++thread) {
    threads_.emplace_back([this, thread] { loop(static_cast<uint8_t>(thread)); });
  }
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

void Decoders::decode(const Work& work, uint8_t thread) {
  const Trace::Time begin = Trace::Clock::now();
  decode_chunk(*work.stage, *work.chunk, work.stored, work.memory, *work.path);
  if (trace_ == nullptr) return;
  trace_->record(Track::kDecoders, Activity::kDecode, work.index, begin, Trace::Clock::now(), {work.chunk->length, 0}, thread);
}

void Decoders::loop(uint8_t thread) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || begun_ < submitted_; });
    if (begun_ == submitted_) return;
    const Work work = queue_[begun_++ % queue_.size()];
    lock.unlock();
    try {
      decode(work, thread);
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
