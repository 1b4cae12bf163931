// Reads and writes beside the caller's work: memory, and a thread that fills or empties it.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "../platform/memory.h"

namespace layerstream {

// One transfer at a time. Used from one thread.
class Transfer {
 public:
  struct Request {
    bool write = false;
    int descriptor = -1;
    uint8_t* memory = nullptr;
    uint64_t length = 0;
    uint64_t position = 0;  // in the file
  };

  // Throws Error{"DEVICE_FAILED"} when the system refuses the memory, std::system_error when it refuses the thread.
  Transfer(uint32_t buffers, uint64_t bytes);
  // Waits for the transfer under way.
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  uint32_t buffers() const { return static_cast<uint32_t>(memory_.size()); }
  uint64_t bytes() const { return bytes_; }
  uint8_t* buffer(uint32_t index) const { return memory_[index].data(); }
  bool busy() const { return busy_; }

  // One system call. Requires !busy(); the memory lies in a buffer.
  void start(const Request& request);
  // Waits for it: bytes, fewer than asked for as the system likes, or -errno. Requires busy().
  int64_t finish();

 private:
  void loop();

  const uint64_t bytes_;
  std::vector<Arena> memory_;
  bool busy_ = false;  // the caller's
  std::mutex mutex_;
  std::condition_variable changed_;
  bool requested_ = false;
  bool done_ = false;
  bool stop_ = false;
  Request request_;
  int64_t result_ = 0;
  std::thread thread_;
};

}  // namespace layerstream
