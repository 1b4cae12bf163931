// Ops as kernels with their arguments, enqueued on a stream.
#pragma once

#include <initializer_list>

#include "stream.h"

namespace layerstream::opencl {

inline DeviceMemory& memory_of(Range range) { return *static_cast<DeviceMemory*>(range.buffer); }

// Memory of a work group, as an argument.
struct LocalBytes {
  size_t bytes;
};

class Launcher {
 public:
  Launcher(const Context& context, DeviceStream& stream) : context_(context), stream_(stream) {}

  // Of the device's memory that ops take at most, where no matrix has more columns.
  static uint64_t scratch_bytes(const Context& context, uint32_t columns);

  void run(const EmbedOp& op);
  void run(const NormOp& op);
  void run(const MatmulOp& op);
  void run(const RopeOp& op);
  void run(const AttentionOp& op);
  void run(const ActivationOp& op);
  void run(const ScaleTokensOp& op);
  void run(const SoftCapOp& op);
  void run(const GatherRowsOp& op);
  void run(const ScatterAddOp& op);
  void run(const PermuteOp& op);

 private:
  void attend_in_splits(const AttentionOp& op, Operand keys, Operand values, Operand pages);
  // Products with integers are those of `prepared`; without, its memory is null.
  void multiply(const MatmulOp& op, Operand weight, Operand prepared, uint32_t first_row, uint32_t rows);
  // The input as integers; null memory if the product is not made with them.
  Operand prepare(const MatmulOp& op);
  // The alignment of rows that the kernel may rely on: 1, 4 or 16 bytes.
  uint32_t alignment(uint64_t offset, uint64_t row_bytes) const;
  // Brings each range into one buffer. Before the first operand(): what moves one range may move another.
  void gather(std::initializer_list<Range> ranges);
  // The buffer with the range; that of no range is null.
  Operand operand(Range range);
  // The same for weights, which stay where they are: a range in several buffers is copied to the stream's own memory.
  Operand copied(Range range);
  // Items that share a row of a product.
  uint32_t lanes() const { return context_.host_processor() ? 1 : kGpuLanes; }

  template <class... Arguments>
  void set(cl_kernel kernel, const Arguments&... arguments);
  void set_one(cl_kernel kernel, cl_uint& index, const Operand& operand);
  void set_one(cl_kernel kernel, cl_uint& index, LocalBytes local);
  void set_one(cl_kernel kernel, cl_uint& index, uint32_t value) { set_bytes(kernel, index, sizeof value, &value); }
  void set_one(cl_kernel kernel, cl_uint& index, int32_t value) { set_bytes(kernel, index, sizeof value, &value); }
  void set_one(cl_kernel kernel, cl_uint& index, uint64_t value) { set_bytes(kernel, index, sizeof value, &value); }
  void set_one(cl_kernel kernel, cl_uint& index, float value) { set_bytes(kernel, index, sizeof value, &value); }
  void set_one(cl_kernel kernel, cl_uint& index, bool value) { set_one(kernel, index, uint32_t{value}); }
  void set_bytes(cl_kernel kernel, cl_uint& index, size_t bytes, const void* value);

  const Context& context_;
  DeviceStream& stream_;
};

template <class... Arguments>
void Launcher::set(cl_kernel kernel, const Arguments&... arguments) {
  cl_uint index = 0;
  (set_one(kernel, index, arguments), ...);
}

}  // namespace layerstream::opencl
