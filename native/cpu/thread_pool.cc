#include "thread_pool.h"

#include <string>
#include <system_error>

#include "../platform/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace layerstream::cpu {

namespace {

// About 20 microseconds: longer than the gap between two operations of a stage, shorter than any read.
constexpr int kSpins = 600;

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(uint32_t threads) {
  try {
    for (uint32_t thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error& error) {
    const size_t started = workers_.size() + 1;
    stop();
    throw Error("DEVICE_FAILED", "The system refused more than " + std::to_string(started) + " of " + std::to_string(threads) +
                                     " threads: " + error.what() + ". Ask for fewer.");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::run(uint32_t count, Body body, void* context) {
  if (count == 0) return;
  if (count == 1 || workers_.empty()) {
    for (uint32_t index = 0; index < count; ++index) body(context, index, 0);
    return;
  }
  body_ = body;
  context_ = context;
  count_ = count;
  next_ = 0;
  open_ = true;
  if (sleeping_ > 0) {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  for (uint32_t index = next_.fetch_add(1); index < count; index = next_.fetch_add(1)) body(context, index, 0);
  open_ = false;
  // A worker raises inside_ before it looks at open_: from here on it either is counted or sees the loop closed.
  for (int spins = 0; inside_ > 0; ++spins) {
    relax();
    if (spins > kSpins) std::this_thread::yield();
  }
}

bool ThreadPool::join(uint32_t thread) {
  inside_.fetch_add(1);
  const bool joined = open_;
  if (joined) {
    for (uint32_t index = next_.fetch_add(1); index < count_; index = next_.fetch_add(1)) body_(context_, index, thread);
  }
  inside_.fetch_sub(1);
  return joined;
}

void ThreadPool::work(uint32_t thread) {
  while (!stop_) {
    bool joined = false;
    for (int spins = 0; spins < kSpins && !joined && !stop_; ++spins) {
      if (open_ && next_ < count_) joined = join(thread);
      if (!joined) relax();
    }
    if (joined) continue;
    std::unique_lock lock(mutex_);
    sleeping_.fetch_add(1);
    wake_.wait(lock, [this] { return stop_ || (open_ && next_ < count_); });
    sleeping_.fetch_sub(1);
  }
}

}  // namespace layerstream::cpu
