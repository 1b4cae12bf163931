// Ops as kernels with their arguments, enqueued on a stream.
#pragma once

#include "kernels/arguments.h"
#include "stream.h"

namespace layerstream::cuda {

// Null for no range.
template <class T>
T* pointer(Range range) {
  return reinterpret_cast<T*>(address_of(range));
}

// Whether a device of these limits executes ops of this kind, with these formats, widths and options.
bool supports(const Limits& limits, const Op& op);

// Partial results of attention, at most: those of 64 heads of 128 dimensions and 150,000 positions.
constexpr uint64_t kPartialBytes = 40 << 20;
// Of a stream, at most, where no matrix has more columns.
uint64_t scratch_bytes(uint32_t columns);

// What of an op's launches changes from one token of a held pass to the next, all else being the same: first_position of
// append and attention, with it the blocks of attention's grid where a split begins, and the row that embed reads.
class Launcher {
 public:
  explicit Launcher(DeviceStream& stream) : stream_(stream) {}

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
  void multiply_few(MatmulArguments& arguments);
  void multiply_many(Precision precision, MatmulArguments& arguments);
  template <class Arguments>
  void launch(const char* name, Grid grid, uint32_t threads, uint32_t shared_bytes, const Arguments& arguments) {
    // Nothing to do is no grid.
    if (grid.x == 0 || grid.y == 0) return;
    stream_.launch(name, grid, threads, shared_bytes, &arguments, sizeof arguments);
  }
  template <class Arguments>
  void launch_elements(const char* name, uint32_t tokens, uint32_t width, const Arguments& arguments);

  DeviceStream& stream_;
};

}  // namespace layerstream::cuda
