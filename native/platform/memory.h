// Page-aligned memory outside the C++ and JavaScript heaps, for weights, rings and caches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value / alignment * alignment; }

// Whole huge pages of memory that has not been touched yet, where the system grants them. Reads into them are far faster.
void prefer_huge_pages(void* memory, size_t bytes);

// One mapping, zero-filled, on 2 MiB huge pages where the system grants them, freed on destruction.
// Pages are resident only once touched.
class Arena {
 public:
  Arena() = default;
  // Throws Error{"DEVICE_FAILED"} when the system refuses.
  explicit Arena(size_t bytes) : Arena(bytes, true) {}
  // Address space of which only what is committed will be used, on small pages outside of that.
  static Arena reserve(size_t bytes) { return Arena(bytes, false); }
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // Makes every page resident now, so that no read or kernel pays for a page fault later.
  void touch();
  // This part will be used: on huge pages where whole ones lie within it. Nothing is resident yet.
  void commit(size_t offset, size_t bytes);
  // Makes this part resident where the system can do so without touching its content, which others may be writing.
  void populate(size_t offset, size_t bytes);
  // Gives the memory behind the whole pages of this part back to the system. It reads as zero afterwards.
  void discard(size_t offset, size_t bytes);

 private:
  Arena(size_t bytes, bool committed);

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
};

}  // namespace layerstream
