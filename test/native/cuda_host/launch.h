// Runs CUDA kernels that were compiled for the host (cuda_host.h): blocks one after the other, their threads as fibers that
// meet at barriers and in warps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace layerstream::cuda_host {

struct Kernel {
  const char* name;
  void (*run)(const void* arguments);  // one thread
  size_t argument_bytes;
  uint32_t max_threads;  // of a block
};

struct Grid {
  uint32_t x = 1, y = 1, z = 1;
};

// In which order the threads of a block take turns. Results must not depend on it.
enum class Order : uint8_t { kAscending, kRandom };

// Null if there is no such kernel.
const Kernel* find_kernel(std::string_view name);

// Returns what is wrong with the launch or what its threads did wrong: a barrier or an operation of a warp that not all of
// them reach, or that they reach by different ways. Empty if all is well.
std::string launch(const Kernel& kernel, Grid grid, uint32_t threads, uint32_t shared_bytes, const void* arguments,
                   Order order = Order::kAscending);

// Makes kernels findable. Every kernel has one of static storage.
struct Registration {
  explicit Registration(const Kernel& kernel);
};

}  // namespace layerstream::cuda_host
