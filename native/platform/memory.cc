#include "memory.h"

#include <sys/mman.h>

#include <string>
#include <utility>

#include "error.h"

namespace layerstream {

void prefer_huge_pages(void* memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
  // Only whole huge pages: small ones around them keep the resident size exact.
  const uint64_t address = reinterpret_cast<uint64_t>(memory);
  const uint64_t begin = align_up(address, kHugePageBytes);
  const uint64_t end = align_down(address + bytes, kHugePageBytes);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

Arena::Arena(size_t bytes, bool committed) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) throw Error("DEVICE_FAILED", "No system has " + std::to_string(bytes) + " bytes of memory.");
  const bool huge = bytes >= kHugePageBytes;
  size_ = align_up(bytes, kPageBytes);
  mapping_bytes_ = size_ + (huge ? kHugePageBytes : 0);
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (committed ? 0 : MAP_NORESERVE), -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw Error("DEVICE_FAILED", "The system refused " + std::to_string(bytes) + " bytes of memory.");
  }
#ifdef MADV_DONTFORK
  // What a disk or a device writes while a child is being made could go to the child's copy (open(2), NOTES on O_DIRECT).
  madvise(mapping_, mapping_bytes_, MADV_DONTFORK);
#endif
  const uint64_t start = reinterpret_cast<uint64_t>(mapping_);
  data_ = reinterpret_cast<uint8_t*>(huge ? align_up(start, kHugePageBytes) : start);
  if (committed) commit(0, size_);
}

void Arena::commit(size_t offset, size_t bytes) { prefer_huge_pages(data_ + offset, bytes); }

void Arena::populate(size_t offset, size_t bytes) {
#ifdef __linux__
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, of Linux 5.14
  const uint64_t begin = align_down(offset, kPageBytes);
  madvise(data_ + begin, align_up(offset + bytes, kPageBytes) - begin, kPopulateWrite);
#endif
}

void Arena::discard(size_t offset, size_t bytes) {
  const uint64_t begin = align_up(offset, kPageBytes);
  const uint64_t end = align_down(offset + bytes, kPageBytes);
  if (begin >= end) return;
#ifdef MADV_NOHUGEPAGE
  madvise(data_ + begin, end - begin, MADV_NOHUGEPAGE);
#endif
#ifdef __linux__
  // MADV_DONTNEED alone leaves a huge page that lies across an edge charged as a whole; MADV_FREE splits it first.
  madvise(data_ + begin, end - begin, MADV_FREE);
  madvise(data_ + begin, end - begin, MADV_DONTNEED);
#else
  mmap(data_ + begin, end - begin, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
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
