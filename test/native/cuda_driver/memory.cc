#include "memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace layerstream::cuda_driver {

namespace {

constexpr uint64_t kAlignment = 256, kCanary = 256;
constexpr int kUnset = 0xff, kGuard = 0xa5;  // floats of all ones are NaN

void* pointer(uint64_t address) { return reinterpret_cast<void*>(address); }

[[noreturn]] void misuse(const char* what, uint64_t address) {
  fprintf(stderr, "CUDA driver of the tests: %s at %#llx\n", what, static_cast<unsigned long long>(address));
  abort();
}

void check_guard(uint64_t begin, uint64_t allocation) {
  for (uint64_t i = 0; i < kCanary; ++i) {
    if (static_cast<const uint8_t*>(pointer(begin))[i] != kGuard) misuse("a kernel wrote outside of the allocation", allocation);
  }
}

}  // namespace

Memory::~Memory() {
  while (!mappings_.empty()) unmap(mappings_.begin()->first, mappings_.begin()->second.bytes);
  while (!reservations_.empty()) unreserve(reservations_.begin()->first, reservations_.begin()->second);
  while (!allocations_.empty()) free(allocations_.begin()->first);
}

bool Memory::take(uint64_t bytes) {
  if (++allocations_made_ == failing_ || bytes > limit_ || used_ > limit_ - bytes) return false;
  used_ += bytes;
  return true;
}

uint64_t Memory::alloc(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (!take(bytes)) return 0;
  const uint64_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  auto* const block = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, padded + 2 * kCanary));
  if (block == nullptr) abort();
  memset(block, kGuard, padded + 2 * kCanary);
  memset(block + kCanary, kUnset, bytes);
  const auto address = reinterpret_cast<uint64_t>(block + kCanary);
  allocations_.emplace(address, bytes);
  return address;
}

bool Memory::free(uint64_t address) {
  std::lock_guard lock(mutex_);
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) return false;
  check_guard(address - kCanary, address);
  check_guard(address + found->second, address);
  used_ -= found->second;
  allocations_.erase(found);
  std::free(pointer(address - kCanary));
  return true;
}

uint64_t Memory::reserve(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (granularity_ == 0 || bytes % granularity_ != 0) return 0;
  void* const memory = mmap(nullptr, bytes + granularity_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 0;
  // From a whole granule on, as drivers do it.
  const auto begin = reinterpret_cast<uint64_t>(memory);
  const uint64_t address = (begin + granularity_ - 1) / granularity_ * granularity_;
  if (address > begin) munmap(memory, address - begin);
  munmap(pointer(address + bytes), begin + granularity_ - address);
  reservations_.emplace(address, bytes);
  return address;
}

bool Memory::unreserve(uint64_t address, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = reservations_.find(address);
  if (found == reservations_.end() || found->second != bytes) return false;
  const auto mapping = mappings_.lower_bound(address);
  if (mapping != mappings_.end() && mapping->first < address + bytes) return false;
  munmap(pointer(address), bytes);
  reservations_.erase(found);
  return true;
}

uint64_t Memory::create(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (granularity_ == 0 || bytes % granularity_ != 0 || !take(bytes)) return 0;
  handles_.emplace(next_handle_, bytes);
  return next_handle_++;
}

bool Memory::release(uint64_t handle) {
  std::lock_guard lock(mutex_);
  const auto found = handles_.find(handle);
  if (found == handles_.end()) return false;
  used_ -= found->second;
  handles_.erase(found);
  return true;
}

bool Memory::map(uint64_t address, uint64_t bytes, uint64_t handle) {
  std::lock_guard lock(mutex_);
  const auto found = handles_.find(handle);
  const auto behind = reservations_.upper_bound(address);
  if (found == handles_.end() || found->second != bytes || behind == reservations_.begin()) return false;
  const auto [begin, length] = *std::prev(behind);
  if (address % granularity_ != 0 || address + bytes > begin + length) return false;
  const auto next = mappings_.lower_bound(address);
  if (next != mappings_.end() && next->first < address + bytes) return false;
  if (next != mappings_.begin() && std::prev(next)->first + std::prev(next)->second.bytes > address) return false;
  mappings_.emplace(address, Mapping{bytes, handle, false});
  return true;
}

bool Memory::allow(uint64_t address, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = mappings_.find(address);
  if (found == mappings_.end() || found->second.bytes != bytes || found->second.allowed) return false;
  if (mprotect(pointer(address), bytes, PROT_READ | PROT_WRITE) != 0) return false;
  memset(pointer(address), kUnset, bytes);
  return found->second.allowed = true;
}

bool Memory::unmap(uint64_t address, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = mappings_.find(address);
  if (found == mappings_.end() || found->second.bytes != bytes) return false;
  mmap(pointer(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  mappings_.erase(found);
  return true;
}

bool Memory::lock_host(const void* memory, uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  if (reinterpret_cast<uint64_t>(memory) % kPage != 0 || bytes == 0 || host_locked(memory, bytes) != Locked::kNone) return false;
  std::lock_guard lock(mutex_);
  return locked_.emplace(reinterpret_cast<uint64_t>(memory), bytes).second;
}

bool Memory::unlock_host(const void* memory) {
  std::lock_guard lock(mutex_);
  return locked_.erase(reinterpret_cast<uint64_t>(memory)) == 1;
}

Memory::Locked Memory::host_locked(const void* memory, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto begin = reinterpret_cast<uint64_t>(memory), end = begin + bytes;
  const auto behind = locked_.lower_bound(end);
  if (behind == locked_.begin()) return Locked::kNone;
  const auto [first, length] = *std::prev(behind);
  if (first + length <= begin) return Locked::kNone;
  return first <= begin && first + length >= end ? Locked::kAll : Locked::kPart;
}

bool Memory::contains(uint64_t address, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto behind = allocations_.upper_bound(address);
  if (behind != allocations_.begin() && std::prev(behind)->first + std::prev(behind)->second >= address + bytes) return true;
  for (uint64_t next = address; next < address + bytes;) {
    const auto after = mappings_.upper_bound(next);
    if (after == mappings_.begin()) return false;
    const auto& [begin, mapping] = *std::prev(after);
    if (!mapping.allowed || begin + mapping.bytes <= next) return false;
    next = begin + mapping.bytes;
  }
  return bytes > 0;
}

uint64_t Memory::free_bytes() {
  std::lock_guard lock(mutex_);
  return limit_ - used_;
}

uint64_t Memory::left() {
  std::lock_guard lock(mutex_);
  return allocations_.size() + reservations_.size() + handles_.size() + mappings_.size() + locked_.size();
}

}  // namespace layerstream::cuda_driver
