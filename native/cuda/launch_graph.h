// Launches that repeat, as a CUDA graph: a pass of one token with everything held is the same kernels each time, with some
// arguments changed. Launched as one, the device waits for no launch in between.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "context.h"

namespace layerstream::cuda {

struct Grid {
  uint32_t x = 1, y = 1, z = 1;
  bool operator==(const Grid&) const = default;
};

struct Launch {
  static constexpr size_t kMostArgumentBytes = 256;

  CUfunction function;
  Grid grid;
  uint32_t threads, shared_bytes;
  std::array<std::byte, kMostArgumentBytes> arguments;  // one struct, and zeros
  bool operator==(const Launch&) const = default;

  // `parameters`: one pointer, for the driver to read.
  CUDA_KERNEL_NODE_PARAMS node(void** parameters);
};

class LaunchGraph {
 public:
  explicit LaunchGraph(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~LaunchGraph();
  LaunchGraph(const LaunchGraph&) = delete;
  LaunchGraph& operator=(const LaunchGraph&) = delete;

  // Enqueues all of it. Throws Error{"DEVICE_FAILED"}.
  void run(std::vector<Launch>& launches, CUstream stream);

 private:
  void build(std::vector<Launch>& launches);
  void release() noexcept;

  const std::shared_ptr<Context> context_;
  std::vector<Launch> launches_;  // as the graph has them
  std::vector<CUgraphNode> nodes_;
  CUgraph graph_ = nullptr;
  CUgraphExec executable_ = nullptr;
};

// Whether they are the same kernels in the same order.
bool same_kernels(const std::vector<Launch>& a, const std::vector<Launch>& b);

}  // namespace layerstream::cuda
