// One OpenCL device of this system: its limits, and what all streams of it share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "api.h"

namespace layerstream::opencl {

class Context {
 public:
  // `max_allocation`: no larger buffers, beside the device's own limit; 0 for that alone.
  Context(const Api& api, cl_device_id device, uint64_t max_allocation);
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
  const std::string& name() const { return name_; }
  const std::string& driver() const { return driver_; }
  // It is a processor of the host: one work item does what a work group of a GPU does.
  bool host_processor() const { return host_processor_; }
  uint64_t max_allocation() const { return max_allocation_; }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint32_t compute_units() const { return compute_units_; }

 private:
  const Api& api_;
  const cl_device_id device_;
  std::string name_, driver_;
  bool host_processor_ = false;
  uint64_t max_allocation_ = 0, memory_bytes_ = 0;
  uint32_t compute_units_ = 0;
  std::atomic<uint64_t> allocated_{0};
  cl_context context_ = nullptr;
  cl_command_queue host_queue_ = nullptr;
};

// The best device of all platforms: a GPU, rather than an accelerator, rather than a processor. Null where there is none
// that can be used; `reason` then says why.
cl_device_id choose_device(std::string* reason);

}  // namespace layerstream::opencl
