// One OpenCL device of this system: its limits, and what all streams of it share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../backend/device.h"
#include "api.h"

namespace layerstream::opencl {

class Context {
 public:
  Context(const Api& api, cl_device_id device, const DeviceInfo& info, const DeviceOptions& options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // At most max_allocation() bytes. Throws Error{"DEVICE_FAILED"} where the device has no room.
  cl_mem create_buffer(uint64_t bytes);
  void release_buffer(cl_mem memory, uint64_t bytes);
  // A buffer that is host memory; released by clReleaseMemObject alone.
  cl_mem create_host_buffer(uint64_t bytes);
  cl_command_queue create_queue() const;
  // For what the host waits for: work items of other queues do not order it.
  cl_command_queue host_queue() const { return host_queue_; }

  const Api& api() const { return api_; }
  cl_device_id device() const { return device_; }
  cl_context handle() const { return context_; }
  // What it is called by its driver.
  const std::string& name() const { return info_.kernels; }
  const std::string& driver() const { return info_.driver; }
  const DeviceInfo& info() const { return info_; }
  // It is a processor of the host: one work item does what a work group of a GPU does.
  bool host_processor() const { return host_processor_; }
  // It is one with AVX-512 VBMI2 and VNNI, for which some kernels are written.
  bool has_wide_words() const;
  uint64_t max_allocation() const { return max_allocation_; }
  uint64_t memory_bytes() const { return info_.memory_bytes; }
  uint64_t free_bytes() const;
  uint32_t compute_units() const { return compute_units_; }

 private:
  const Api& api_;
  const cl_device_id device_;
  const DeviceInfo info_;
  bool host_processor_ = false;
  uint64_t max_allocation_ = 0;
  uint32_t compute_units_ = 0;
  std::atomic<uint64_t> allocated_{0};
  cl_context context_ = nullptr;
  cl_command_queue host_queue_ = nullptr;
};

struct FoundDevice {
  cl_device_id id = nullptr;
  int rank = 0;  // from the best on
  ListedDevice listed;
};

// The devices of all platforms: GPUs, then accelerators, then processors, then what cannot be used. Where there are none, one
// without an id that says why.
std::vector<FoundDevice> find_devices();

}  // namespace layerstream::opencl
