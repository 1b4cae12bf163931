// Where there is no io_uring: threads that read, so that several reads are under way.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "reader.h"

namespace layerstream {

namespace {

constexpr uint32_t kMaxThreads = 4;

class PreadReader final : public Reader {
 public:
  explicit PreadReader(uint32_t depth) : Reader(depth) {
    for (uint32_t thread = 0; thread < std::min(depth, kMaxThreads); ++thread) threads_.emplace_back([this] { work(); });
  }
  ~PreadReader() override {
    drain();
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    started_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

 protected:
  void start(uint32_t slot, int descriptor, uint64_t offset, uint64_t length, uint8_t* destination) override {
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back({slot, descriptor, offset, length, destination});
    }
    started_.notify_one();
  }
  Completion complete() override {
    std::unique_lock lock(mutex_);
    completed_.wait(lock, [this] { return !completions_.empty(); });
    const Completion completion = completions_.back();
    completions_.pop_back();
    return completion;
  }

 private:
  struct Read {
    uint32_t slot;
    int descriptor;
    uint64_t offset, length;
    uint8_t* destination;
  };

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      started_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const Read read = waiting_.front();
      waiting_.erase(waiting_.begin());
      lock.unlock();
      const ssize_t result = pread(read.descriptor, read.destination, read.length, static_cast<off_t>(read.offset));
      const int64_t outcome = result < 0 ? -errno : result;
      lock.lock();
      completions_.push_back({read.slot, outcome});
      completed_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable started_, completed_;
  std::vector<Read> waiting_;
  std::vector<Completion> completions_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Reader> make_pread_reader(uint32_t depth) { return std::make_unique<PreadReader>(depth); }

}  // namespace layerstream
