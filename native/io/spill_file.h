// A temporary file without a name: gone when it is closed, whatever happens to the process.
#pragma once

#include <cstdint>
#include <string>

namespace layerstream {

// Offsets, lengths and memory are multiples of kPageBytes. Used by one thread at a time.
class SpillFile {
 public:
  // Nothing is created before the first write.
  explicit SpillFile(std::string directory) : directory_(std::move(directory)) {}
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;

  // Both past the page cache where the file system allows it. They throw Error{"KV_SPILL_FAILED"}.
  void write(const uint8_t* memory, uint64_t bytes, uint64_t offset);
  // What has never been written is zeros.
  void read(uint8_t* memory, uint64_t bytes, uint64_t offset);

 private:
  void open();
  [[noreturn]] void fail(const char* what, int error) const;

  std::string directory_;
  int descriptor_ = -1;
};

}  // namespace layerstream
