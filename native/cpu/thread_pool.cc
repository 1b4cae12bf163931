#include "thread_pool.h"

#include <algorithm>
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

ThreadPool::ThreadPool(uint32_t threads) : shares_(std::max(threads, 1u)) {
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
  for (uint32_t thread = 0; thread < threads(); ++thread) {
    shares_[thread].next = static_cast<uint32_t>(uint64_t{count} * thread / threads());
    shares_[thread].end = static_cast<uint32_t>(uint64_t{count} * (thread + 1) / threads());
  }
  ++loops_;
  open_ = true;
  if (sleeping_ > 0) {
    std::lock_guard lock(mutex_);
    wake_.notify_all();
  }
  run_share(0);
  open_ = false;
  // A worker raises inside_ before it looks at open_: from here on it either is counted or sees the loop closed.
  for (int spins = 0; inside_ > 0; ++spins) {
    relax();
    if (spins > kSpins) std::this_thread::yield();
  }
}

// A thread's own indices, then what the others have left.
void ThreadPool::run_share(uint32_t thread) {
  for (uint32_t i = 0; i < threads(); ++i) {
    Share& share = shares_[(thread + i) % threads()];
    for (uint32_t index = share.next++; index < share.end; index = share.next++) body_(context_, index, thread);
  }
}

bool ThreadPool::join(uint32_t thread, uint64_t& seen) {
  ++inside_;
  const bool joined = open_;
  if (joined) {
    seen = loops_;
    run_share(thread);
  }
  --inside_;
  return joined;
}

void ThreadPool::work(uint32_t thread) {
  uint64_t seen = 0;
  const auto wanted = [&] { return open_ && loops_ != seen; };
  while (!stop_) {
    bool joined = false;
    for (int spins = 0; spins < kSpins && !joined && !stop_; ++spins) {
      if (wanted()) joined = join(thread, seen);
      if (!joined) relax();
    }
    if (joined) continue;
    std::unique_lock lock(mutex_);
    sleeping_.fetch_add(1);
    wake_.wait(lock, [&] { return stop_ || wanted(); });
    sleeping_.fetch_sub(1);
  }
}

}  // namespace layerstream::cpu
