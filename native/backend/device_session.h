// A stream of a device, an event, and memory, given back at the end: for work that is enqueued and waited for.
#pragma once

#include <cstdint>

#include "device.h"

namespace layerstream {

class DeviceSession {
 public:
  // The device outlives this object.
  explicit DeviceSession(Device& device) : device_(device), stream_(device.create_stream()) {}
  ~DeviceSession() {
    device_.destroy(stream_);
    if (event_ != nullptr) device_.destroy(event_);
    if (buffer_ != nullptr) device_.free(buffer_);
    if (pinned_ != nullptr) device_.free_pinned(pinned_);
  }
  DeviceSession(const DeviceSession&) = delete;
  DeviceSession& operator=(const DeviceSession&) = delete;

  Stream* stream() const { return stream_; }
  // Once each.
  Range alloc(uint64_t bytes) {
    buffer_ = device_.alloc(bytes);
    return {buffer_, 0, bytes};
  }
  void* alloc_pinned(uint64_t bytes) { return pinned_ = device_.alloc_pinned(bytes); }
  // Waits until all that was enqueued has run, and throws what it threw.
  void finish() {
    if (event_ == nullptr) event_ = device_.create_event();
    device_.record(event_, stream_);
    device_.synchronize(event_);
  }

 private:
  Device& device_;
  Stream* const stream_;
  Event* event_ = nullptr;
  Buffer* buffer_ = nullptr;
  void* pinned_ = nullptr;
};

}  // namespace layerstream
