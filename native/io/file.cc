#include "file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

std::string describe_errno(int error) { return std::string(std::strerror(error)) + " (errno " + std::to_string(error) + ")"; }

namespace {

int64_t modified_nanoseconds(const struct stat& status) {
#ifdef __APPLE__
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void drop_cached_pages(const std::string& path) {
#ifdef POSIX_FADV_DONTNEED
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  close(descriptor);
#endif
}

WeightFile::WeightFile(const std::string& path, uint64_t expected_bytes) : path_(path) {
#ifdef O_DIRECT
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (descriptor_ >= 0) {
    Arena page(kPageBytes);
    if (pread(descriptor_, page.data(), kPageBytes, 0) < 0) {
      buffered_reason_ = "a direct read of " + path + " failed: " + describe_errno(errno);
      close(descriptor_);
      descriptor_ = -1;
    }
  } else {
    buffered_reason_ = "the file system of " + path + " refuses O_DIRECT: " + describe_errno(errno);
  }
#endif
  if (descriptor_ < 0) descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) {
    throw Error("IO_ERROR", "Cannot open " + path + ": " + describe_errno(errno) + ".");
  }
#ifdef __APPLE__
  if (fcntl(descriptor_, F_NOCACHE, 1) != 0) buffered_reason_ = "F_NOCACHE was refused: " + describe_errno(errno);
#endif
  struct stat status {};
  if (fstat(descriptor_, &status) != 0) {
    const int error = errno;
    close(descriptor_);
    throw Error("IO_ERROR", "Cannot tell the size of " + path + ": " + describe_errno(error) + ".");
  }
  size_ = static_cast<uint64_t>(status.st_size);
  modified_nanoseconds_ = modified_nanoseconds(status);
  if (static_cast<uint64_t>(status.st_size) < expected_bytes) {
    close(descriptor_);
    throw Error("STORE_CORRUPT", path + " is " + std::to_string(status.st_size) + " bytes long, its manifest says " + std::to_string(expected_bytes) +
                                     ". Run `layerstream verify`, then decompose again.");
  }
}

WeightFile::~WeightFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool WeightFile::unchanged() const {
  struct stat status {};
  return fstat(descriptor_, &status) == 0 && static_cast<uint64_t>(status.st_size) == size_ &&
         modified_nanoseconds(status) == modified_nanoseconds_;
}

WeightFile::WeightFile(WeightFile&& other) noexcept
    : descriptor_(other.descriptor_),
      modified_nanoseconds_(other.modified_nanoseconds_),
      size_(other.size_),
      path_(std::move(other.path_)),
      buffered_reason_(std::move(other.buffered_reason_)) {
  other.descriptor_ = -1;
}

}  // namespace layerstream
