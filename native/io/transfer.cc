#include "transfer.h"

#include <unistd.h>

#include <cerrno>

namespace layerstream {

namespace {

int64_t carry_out(const Transfer::Request& request) {
  for (;;) {
    const auto position = static_cast<off_t>(request.position);
    const ssize_t result = request.write ? pwrite(request.descriptor, request.memory, request.length, position)
                                         : pread(request.descriptor, request.memory, request.length, position);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

}  // namespace

Transfer::Transfer(uint32_t buffers, uint64_t bytes) : bytes_(bytes) {
  for (uint32_t index = 0; index < buffers; ++index) memory_.emplace_back(bytes);
  thread_ = std::thread([this] { loop(); });
}

Transfer::~Transfer() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Transfer::start(const Request& request) {
  busy_ = true;
  std::lock_guard lock(mutex_);
  request_ = request;
  requested_ = true;
  done_ = false;
  changed_.notify_all();
}

int64_t Transfer::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_; });
  busy_ = false;
  return result_;
}

void Transfer::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || requested_; });
    if (!requested_) return;
    requested_ = false;
    lock.unlock();
    const int64_t result = carry_out(request_);
    lock.lock();
    result_ = result;
    done_ = true;
    changed_.notify_all();
  }
}

}  // namespace layerstream
