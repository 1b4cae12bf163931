// Memory of the device as ranges see it: one run of bytes, behind which there are buffers of OpenCL wherever it has been
// committed. A buffer is no larger than the device allows, so a long run is in several.
#pragma once

#include <cstdint>
#include <functional>
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

  // The parts of a range, in order: their operand, where in the range they begin, their length. What is not committed has
  // no parts.
  using Part = std::function<void(Operand operand, uint64_t begin, uint64_t bytes)>;
  // Returns their length together.
  uint64_t for_each_part(uint64_t offset, uint64_t bytes, const Part& part);
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

}  // namespace layerstream::opencl
