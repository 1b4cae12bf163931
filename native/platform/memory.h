// Page-aligned memory outside the C++ and JavaScript heaps, for weights, rings and caches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

constexpr size_t kPageBytes = 4096;

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value / alignment * alignment; }

// One mapping, zero-filled, on 2 MiB huge pages where the system grants them, freed on destruction.
// Pages are resident only once touched.
class Arena {
 public:
  Arena() = default;
  // Throws Error{"DEVICE_FAILED"} when the system refuses.
  explicit Arena(size_t bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // Makes every page resident now, so that no read or kernel pays for a page fault later.
  void touch();

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace layerstream
