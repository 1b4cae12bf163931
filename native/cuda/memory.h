// Device memory: one run of addresses, of which all is committed, or the parts that are used.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "../backend/ops.h"
#include "context.h"

namespace layerstream::cuda {

class DeviceMemory : public Buffer {
 public:
  // Throws Error{"DEVICE_FAILED"}. `reserved`: addresses only, where the device has virtual memory.
  DeviceMemory(std::shared_ptr<Context> context, uint64_t bytes, bool reserved);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  CUdeviceptr address() const { return address_; }
  void commit(uint64_t offset, uint64_t bytes);
  // No command may be using the memory.
  void discard(uint64_t offset, uint64_t bytes);

 private:
  void map(uint64_t granule);
  void unmap(uint64_t granule) noexcept;
  bool used(uint64_t begin, uint64_t end) const;

  const std::shared_ptr<Context> context_;
  const uint64_t bytes_;
  CUdeviceptr address_ = 0;
  uint64_t reserved_bytes_ = 0;  // 0: committed as a whole
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> used_;  // from begin to end of what is committed, apart
  std::map<uint64_t, CUmemGenericAllocationHandle> granules_;
};

// The address of a range; 0 of no range.
inline CUdeviceptr address_of(Range range) {
  return range.buffer == nullptr ? 0 : static_cast<DeviceMemory*>(range.buffer)->address() + range.offset;
}

}  // namespace layerstream::cuda
