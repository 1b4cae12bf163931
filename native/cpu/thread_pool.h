// Runs one parallel loop at a time over a fixed set of threads. The caller takes part, so a pool of n threads starts
// n - 1. Each thread has an equal share of neighbouring indices, which it runs in order, so that what it fetches ahead is
// what it uses next; then it helps the others. Workers spin for some microseconds between the loops of one burst and
// sleep otherwise: nothing spins while the device waits for the disk.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace layerstream::cpu {

class ThreadPool {
 public:
  // body(context, index, thread) runs for every index in [0, count); thread < threads().
  using Body = void (*)(void* context, uint32_t index, uint32_t thread);

  // Throws Error{"DEVICE_FAILED"} when the system refuses that many threads.
  explicit ThreadPool(uint32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }

  // Returns when every index has run. Not reentrant; one caller at a time. Many short indices even out cores of unequal
  // speed.
  void run(uint32_t count, Body body, void* context);

  template <typename Function>
  void parallel_for(uint32_t count, const Function& function) {
    const Body body = [](void* context, uint32_t index, uint32_t thread) {
      (*static_cast<const Function*>(context))(index, thread);
    };
    run(count, body, const_cast<void*>(static_cast<const void*>(&function)));
  }

 private:
  // Indices that have not been given out, on a cache line of their own.
  struct alignas(64) Share {
    std::atomic<uint32_t> next{0};
    uint32_t end = 0;
  };

  void work(uint32_t thread);
  // Whether there was a loop to take part in. `seen`: the latest that this worker took part in.
  bool join(uint32_t thread, uint64_t& seen);
  void run_share(uint32_t thread);
  void stop();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> sleeping_{0};
  std::atomic<bool> stop_{false};

  // Written by the caller while no worker is inside a loop, read by workers inside one.
  Body body_ = nullptr;
  void* context_ = nullptr;
  std::vector<Share> shares_;          // one a thread
  std::atomic<uint64_t> loops_{0};
  std::atomic<bool> open_{false};      // a loop accepts workers
  std::atomic<uint32_t> inside_{0};    // workers that may be inside a loop
};

}  // namespace layerstream::cpu
