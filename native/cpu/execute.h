// Executes one op on the CPU's kernels, split over a thread pool.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "../backend/device.h"
#include "../platform/memory.h"
#include "kernels.h"
#include "thread_pool.h"

namespace layerstream::cpu {

struct CpuBuffer : Buffer {
  explicit CpuBuffer(Arena memory) : data(memory.data()), arena(std::move(memory)) {}
  explicit CpuBuffer(void* memory) : data(static_cast<uint8_t*>(memory)) {}

  uint8_t* data;
  Arena arena;  // empty for aliases
};

// Below this much work, waking another thread costs more than it saves.
constexpr uint64_t kParallelBytes = 64 << 10;

template <typename T = float>
T* address(Range range) {
  if (range.buffer == nullptr) return nullptr;
  return reinterpret_cast<T*>(static_cast<const CpuBuffer*>(range.buffer)->data + range.offset);
}

class Executor {
 public:
  Executor(const KernelTable& kernels, uint32_t threads);

  void execute(const Op& op);
  // As Device says.
  double measure_peak(PeakKind kind, double seconds);

 private:
  void run(const EmbedOp& op);
  void run(const NormOp& op);
  // execute_matmul.cc
  void run(const MatmulOp& op);
  void run_exact(const MatmulOp& op);
  void run_fast(const MatmulOp& op, const FastKernels& kernels);
  const FastKernels* fast_kernels(const MatmulOp& op) const;
  void run(const RopeOp& op);
  void run(const AttentionOp& op);
  void run(const ActivationOp& op);
  void run(const ScaleTokensOp& op);
  void run(const SoftCapOp& op);
  void run(const GatherRowsOp& op);
  void run(const ScatterAddOp& op);
  void run(const PermuteOp& op);
  // Puts the new keys and values into the cache.
  void append(const AttentionOp& op);
  float* scratch(uint32_t thread, size_t floats);
  // function(token) for every token, on all threads if their rows of `width` floats are worth it.
  template <typename Function>
  void for_each_token(uint32_t tokens, uint64_t width, const Function& function);

  // What decides how activations are prepared, but for their values.
  struct PreparedInput {
    const FastKernels* kernels = nullptr;
    Format format{};
    uint32_t block = 0;
    const float* input = nullptr;
    uint32_t stride = 0, columns = 0, tokens = 0;

    bool operator==(const PreparedInput&) const = default;
  };

  const KernelTable& kernels_;
  ThreadPool pool_;
  std::vector<Arena> scratch_;  // one a thread, grown to the largest op seen
  Arena prepared_;              // activations of a fast product, grown likewise
  PreparedInput prepared_input_;  // of which prepared_ is, as long as products keep their input
};

template <typename Function>
void Executor::for_each_token(uint32_t tokens, uint64_t width, const Function& function) {
  if (tokens == 1 || tokens * width * sizeof(float) < kParallelBytes) {
    for (uint32_t token = 0; token < tokens; ++token) function(token);
  } else {
    pool_.parallel_for(tokens, [&](uint32_t token, uint32_t) { function(token); });
  }
}

}  // namespace layerstream::cpu
