// A weight file opened for reads that bypass the page cache.
#pragma once

#include <cstdint>
#include <string>

namespace layerstream {

class WeightFile {
 public:
  // Opens with O_DIRECT (F_NOCACHE on macOS) and tries one read. Where that is refused, opens buffered and says why.
  // Throws Error{"IO_ERROR"} when the file cannot be read at all, {"STORE_CORRUPT"} when it is shorter than
  // `expected_bytes`.
  WeightFile(const std::string& path, uint64_t expected_bytes);
  ~WeightFile();
  WeightFile(WeightFile&& other) noexcept;
  WeightFile& operator=(WeightFile&&) = delete;

  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }
  // False once the file has been written to, or has another size, since it was opened.
  bool unchanged() const;
  bool direct() const { return buffered_reason_.empty(); }
  const std::string& buffered_reason() const { return buffered_reason_; }

 private:
  int descriptor_ = -1;
  int64_t modified_nanoseconds_ = 0;
  uint64_t size_ = 0;
  std::string path_;
  std::string buffered_reason_;
};

// Gives back what the page cache holds of a file and no program has mapped: a memory cgroup is charged for it. Where that
// is not possible, nothing happens.
void drop_cached_pages(const std::string& path);

// A machine-readable and human sentence for an errno.
std::string describe_errno(int error);

}  // namespace layerstream
