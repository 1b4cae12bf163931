// Memory of the emulated device, which is memory of the host: kernels reach it by its addresses. It begins as NaN. What is
// not mapped cannot be touched; what lies around an allocation is checked when it is freed.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

namespace layerstream::cuda_driver {

class Memory {
 public:
  explicit Memory(uint64_t limit, uint64_t granularity, uint64_t failing) : limit_(limit), granularity_(granularity), failing_(failing) {}
  ~Memory();

  // 0 where there is no room.
  uint64_t alloc(uint64_t bytes);
  bool free(uint64_t address);

  uint64_t reserve(uint64_t bytes);
  bool unreserve(uint64_t address, uint64_t bytes);
  uint64_t create(uint64_t bytes);
  bool release(uint64_t handle);
  bool map(uint64_t address, uint64_t bytes, uint64_t handle);
  bool allow(uint64_t address, uint64_t bytes);
  bool unmap(uint64_t address, uint64_t bytes);

  // Whole pages of which none is locked.
  bool lock_host(const void* memory, uint64_t bytes);
  bool unlock_host(const void* memory);
  // Copies know no memory of which a part is.
  enum class Locked : uint8_t { kNone, kPart, kAll };
  Locked host_locked(const void* memory, uint64_t bytes);

  // Whether a command may touch the range.
  bool contains(uint64_t address, uint64_t bytes);
  uint64_t limit() const { return limit_; }
  uint64_t free_bytes();
  // Allocations, reservations, handles, mappings and locked ranges that are left.
  uint64_t left();

 private:
  struct Mapping {
    uint64_t bytes, handle;
    bool allowed;
  };

  bool take(uint64_t bytes);

  const uint64_t limit_, granularity_, failing_;
  std::mutex mutex_;
  uint64_t used_ = 0, allocations_made_ = 0, next_handle_ = 1;
  std::map<uint64_t, uint64_t> allocations_, reservations_, handles_, locked_;
  std::map<uint64_t, Mapping> mappings_;
};

}  // namespace layerstream::cuda_driver
