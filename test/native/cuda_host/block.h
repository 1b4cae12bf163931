// The threads of a block, as kernels see them from inside.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "fiber.h"
#include "launch.h"

namespace layerstream::cuda_host {

constexpr uint32_t kWarpThreads = 32;

class Block {
 public:
  Block(const Kernel& kernel, uint32_t threads, uint32_t shared_bytes, const void* arguments, Order order);

  // Runs one block of the grid; returns what went wrong.
  std::string run(uint32_t x, uint32_t y, uint32_t z);

  // What follows is for threads that run.

  uint32_t thread() const { return current_; }
  uint32_t lane() const { return current_ % kWarpThreads; }
  uint32_t block_index[3] = {};
  uint32_t threads() const { return static_cast<uint32_t>(threads_.size()); }
  uint8_t* shared() const { return shared_begin_; }
  // Of this block and of all before it, so that names can be told apart in messages.
  void barrier();
  // Every thread of the warp passes `value`; what all of them passed, by lane, stays until this thread's next exchange.
  // `kind` is the same for all.
  template <class Value>
  const Value* exchange(const char* kind, const Value& value) {
    static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) <= kMostBytes);
    return static_cast<const Value*>(exchange_bytes(kind, &value, sizeof(Value)));
  }
  // Copies that are under way (cp.async): a thread sees them when it has waited.
  void copy_later(void* target, const void* source, uint32_t bytes);
  // What devices fault on.
  void check_aligned(const char* kind, const void* address, uint32_t bytes);
  void commit_copies();
  void wait_for_copies(size_t groups_left);

 private:
  static constexpr size_t kMostBytes = 48;

  enum class State : uint8_t { kReady, kAtBarrier, kInWarp, kEnded };
  struct Copy {
    void* target;
    const void* source;
    uint32_t bytes;
  };
  struct Thread {
    Place place;
    State state = State::kReady;
    uint32_t exchanges = 0;
    std::vector<Copy> copies;
    std::vector<std::vector<Copy>> copy_groups;
  };
  struct Warp {
    uint32_t arrived = 0, threads = 0;
    const char* kind = nullptr;
    alignas(16) uint8_t values[2][kWarpThreads * kMostBytes];  // of this exchange, and of the one before
  };

  static void run_thread();
  const void* exchange_bytes(const char* kind, const void* value, size_t bytes);
  void pause(State state);
  void fail(const char* message, const char* first = "", const char* second = "");
  std::string describe_deadlock() const;

  const Kernel& kernel_;
  const void* const arguments_;
  const Order order_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<uint32_t> turns_;
  std::vector<uint8_t> shared_;
  uint8_t* shared_begin_ = nullptr;
  Place scheduler_;
  uint32_t current_ = 0, at_barrier_ = 0, ended_ = 0;
  uint32_t seed_ = 1;
  std::string failure_;
};

// The block that this thread runs.
Block& current_block();

}  // namespace layerstream::cuda_host
