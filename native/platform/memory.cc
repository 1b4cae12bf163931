#include "memory.h"

#include <sys/mman.h>

#include <string>
#include <utility>

#include "error.h"

namespace layerstream {

namespace {
constexpr size_t kHugePageBytes = size_t{2} << 20;
}

Arena::Arena(size_t bytes) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) throw Error("DEVICE_FAILED", "No system has " + std::to_string(bytes) + " bytes of memory.");
  const bool huge = bytes >= kHugePageBytes;
  size_ = align_up(bytes, kPageBytes);
  mapping_bytes_ = size_ + (huge ? kHugePageBytes : 0);
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw Error("DEVICE_FAILED", "The system refused " + std::to_string(bytes) + " bytes of memory.");
  }
  const uint64_t start = reinterpret_cast<uint64_t>(mapping_);
  data_ = reinterpret_cast<uint8_t*>(huge ? align_up(start, kHugePageBytes) : start);
#ifdef MADV_HUGEPAGE
  // Only whole huge pages: a tail of 4 KiB pages keeps the resident size exact.
  if (huge) madvise(data_, align_down(size_, kHugePageBytes), MADV_HUGEPAGE);
#endif
}

Arena::~Arena() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

void Arena::touch() {
  volatile uint8_t* bytes = data_;
  for (size_t offset = 0; offset < size_; offset += kPageBytes) bytes[offset] = 0;
}

}  // namespace layerstream
