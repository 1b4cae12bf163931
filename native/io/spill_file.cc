#include "spill_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "../platform/error.h"
#include "file.h"

namespace layerstream {

namespace {

// As large as a disk needs to be at its rate, small enough that an abort is prompt.
constexpr uint64_t kMostBytes = uint64_t{8} << 20;

int open_unnamed(const std::string& directory, int flags) {
  flags |= O_RDWR | O_CLOEXEC;
#ifdef O_TMPFILE
  const int unnamed = open(directory.c_str(), O_TMPFILE | flags, 0600);
  if (unnamed >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return unnamed;
#endif
  // Where files always have names: one that nobody has, for a moment.
  for (uint32_t number = 0;; ++number) {
    const std::string path = directory + "/layerstream-kv-" + std::to_string(getpid()) + "-" + std::to_string(number);
    const int named = open(path.c_str(), O_CREAT | O_EXCL | flags, 0600);
    if (named >= 0) unlink(path.c_str());
    if (named >= 0 || errno != EEXIST) return named;
  }
}

}  // namespace

SpillFile::~SpillFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void SpillFile::fail(const char* what, int error) const {
  throw Error("KV_SPILL_FAILED", std::string(what) + " in " + directory_ + " failed: " + describe_errno(error) +
                                     ". Free space there, name another directory (cacheDir), shorten maxSeqLen, keep keys and"
                                     " values in fewer bits (kvDtype), or give more memory.");
}

void SpillFile::open() {
#ifdef O_DIRECT
  descriptor_ = open_unnamed(directory_, O_DIRECT);
#endif
  if (descriptor_ < 0) descriptor_ = open_unnamed(directory_, 0);
  if (descriptor_ < 0) fail("Making a temporary file for the KV cache", errno);
#ifdef __APPLE__
  fcntl(descriptor_, F_NOCACHE, 1);
#endif
}

void SpillFile::write(const uint8_t* memory, uint64_t bytes, uint64_t offset) {
  if (descriptor_ < 0) open();
  while (bytes > 0) {
    const ssize_t written = pwrite(descriptor_, memory, std::min(bytes, kMostBytes), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("Writing the KV cache to a temporary file", written < 0 ? errno : ENOSPC);
    memory += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
}

void SpillFile::read(uint8_t* memory, uint64_t bytes, uint64_t offset) {
  while (bytes > 0) {
    const ssize_t read = descriptor_ < 0 ? 0 : pread(descriptor_, memory, std::min(bytes, kMostBytes), static_cast<off_t>(offset));
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) fail("Reading the KV cache from a temporary file", errno);
    if (read == 0) {
      // Behind the end, as in a hole.
      std::memset(memory, 0, bytes);
      return;
    }
    memory += read;
    offset += static_cast<uint64_t>(read);
    bytes -= static_cast<uint64_t>(read);
  }
}

}  // namespace layerstream
