// Memory of the device as ranges see it: one run of bytes, behind which there are buffers of OpenCL wherever it has been
// committed. A buffer is no larger than the device allows, so a long run is in several.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "../backend/ops.h"
#include "context.h"

namespace layerstream::opencl {

// A part of one buffer, as kernels take it.
struct Operand {
  cl_mem memory = nullptr;
  uint64_t offset = 0;
};

class DeviceMemory : public Buffer {
 public:
  DeviceMemory(Context& context, uint64_t bytes) : context_(context), bytes_(bytes) {}
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  uint64_t size() const { return bytes_; }
  void commit(uint64_t offset, uint64_t bytes);
  // No command may be using the memory.
  void discard(uint64_t offset, uint64_t bytes);

  // Calls part(operand, where in the range it begins, its length) for the parts of a range, in order. What is not committed
  // has none. Returns their length together.
  template <class Part>
  uint64_t for_each_part(uint64_t offset, uint64_t bytes, const Part& part);
  // A range that lies in one buffer; null memory if it does not.
  Operand in_one(uint64_t offset, uint64_t bytes);
  // A range in one buffer. One that is in several is brought together first, by commands in `queue`; no other queue may
  // be using them then.
  Operand whole(cl_command_queue queue, uint64_t offset, uint64_t bytes);

 private:
  struct Piece {
    uint64_t begin, end;
    cl_mem memory;
  };

  void add(uint64_t begin, uint64_t end);
  void merge(cl_command_queue queue, size_t first, size_t last, uint64_t begin, uint64_t end);
  // Copies what `from` and `to` share.
  void copy(cl_command_queue queue, const Piece& from, const Piece& to);
  void release(const Piece& piece) { context_.release_buffer(piece.memory, piece.end - piece.begin); }
  size_t first_behind(uint64_t offset) const;

  Context& context_;
  const uint64_t bytes_;
  std::mutex mutex_;
  std::vector<Piece> pieces_;  // in order, apart
};

template <class Part>
uint64_t DeviceMemory::for_each_part(uint64_t offset, uint64_t bytes, const Part& part) {
  std::lock_guard lock(mutex_);
  const uint64_t end = offset + bytes;
  uint64_t found = 0;
  for (size_t index = first_behind(offset); index < pieces_.size() && pieces_[index].begin < end; ++index) {
    const Piece& piece = pieces_[index];
    const uint64_t first = std::max(piece.begin, offset);
    const uint64_t size = std::min(piece.end, end) - first;
    part(Operand{piece.memory, first - piece.begin}, first - offset, size);
    found += size;
  }
  return found;
}

}  // namespace layerstream::opencl
