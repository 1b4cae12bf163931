// The primary context of one device: its limits, its kernels, and what all streams of it share.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "driver.h"

namespace layerstream::cuda {

// What an op's launch is divided by.
struct Limits {
  uint32_t multiprocessors = 1;
  uint32_t compute_capability = 0;  // 10 * major + minor: 90 is Hopper
  uint32_t shared_bytes = 0;        // of a block, at most, where a kernel asks for it
};

class Context {
 public:
  // Throws Error{"DEVICE_FAILED"}; Error{"DEVICE_UNAVAILABLE"} where the driver does not take the kernels.
  Context(const Driver& driver, CUdevice device, const DeviceInfo& info);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Makes the context the calling thread's, as every call needs it. Throws what lost the device, if it is lost.
  const Api& enter();
  // The same for what gives something back: null if the device is lost.
  const Api* enter_quietly() noexcept;
  // Throws Error{"DEVICE_FAILED"} naming the call, unless it succeeded. The device is lost if the status says so.
  void check(CUresult status, const char* call);
  // What check would throw; empty for success.
  std::string failure(CUresult status, const char* call);

  // Kernels by their names in the sources. Ready for blocks of `shared_bytes` of dynamic shared memory.
  CUfunction function(const char* name, uint32_t shared_bytes);

  const Driver& driver() const { return driver_; }
  const Limits& limits() const { return limits_; }
  const DeviceInfo& info() const { return info_; }
  // As its maker calls it.
  const std::string& name() const { return info_.kernels; }
  uint64_t free_bytes();
  // Bytes of which virtual memory is mapped and unmapped as one; 0 where the device has no such thing.
  uint64_t granularity() const { return granularity_; }
  CUmemAllocationProp allocation() const;

 private:
  void load_kernels();
  void release() noexcept;

  const Driver& driver_;
  const Api& api_;
  const CUdevice device_;
  CUcontext context_ = nullptr;
  const DeviceInfo info_;
  Limits limits_;
  uint64_t granularity_ = 0;
  std::vector<CUmodule> modules_;
  std::atomic<bool> lost_{false};
  std::mutex mutex_;  // of what follows
  std::string lost_reason_;
  std::mutex functions_mutex_;  // of what follows
  struct Function {
    CUfunction handle;
    uint32_t shared_bytes;
  };
  std::map<std::string, Function, std::less<>> functions_;
};

}  // namespace layerstream::cuda
