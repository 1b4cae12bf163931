#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace layerstream::cuda_host {

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif
constexpr uint32_t kMostThreads = 1024;

thread_local Block* running = nullptr;

// The stacks of a thread's blocks, one after the other; pages cost nothing until they are used.
class Stacks {
 public:
  Stacks() {
    void* memory = mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<uint8_t*>(memory);
  }
  ~Stacks() { munmap(memory_, kMostThreads * kStackBytes); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  uint8_t* of(uint32_t thread) { return memory_ + thread * kStackBytes; }
  // After threads that have not ended: what they left is no one's.
  void forget() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_, kMostThreads * kStackBytes);
#endif
  }

 private:
  uint8_t* memory_;
};

Stacks& stacks() {
  static thread_local Stacks each;
  return each;
}

std::map<std::string_view, Kernel>& kernels() {
  static std::map<std::string_view, Kernel> table;
  return table;
}

}  // namespace

Block& current_block() { return *running; }

Block::Block(const Kernel& kernel, uint32_t threads, uint32_t shared_bytes, const void* arguments, Order order)
    : kernel_(kernel), arguments_(arguments), order_(order), threads_(threads), warps_(threads / kWarpThreads), turns_(threads) {
  std::iota(turns_.begin(), turns_.end(), 0u);
  shared_.resize(shared_bytes + 128);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(shared_.data());
  shared_begin_ = shared_.data() + ((begin + 127) / 128 * 128 - begin);
}

void Block::run_thread() {
  Place::entered();
  Block& block = *running;
  block.kernel_.run(block.arguments_);
  Thread& thread = block.threads_[block.current_];
  if (!thread.copies.empty() || !thread.copy_groups.empty()) block.fail("a thread ended with copies under way");
  thread.state = State::kEnded;
  ++block.ended_;
  thread.place.leave_for(block.scheduler_, true);
}

std::string Block::run(uint32_t x, uint32_t y, uint32_t z) {
  running = this;
  block_index[0] = x;
  block_index[1] = y;
  block_index[2] = z;
  // Whatever was there: NaN, and indexes far out of range.
  std::fill(shared_.begin(), shared_.end(), uint8_t{0xff});
  for (uint32_t i = 0; i < threads_.size(); ++i) {
    threads_[i] = Thread();
    threads_[i].place.begin(stacks().of(i), kStackBytes, &Block::run_thread);
  }
  for (Warp& warp : warps_) warp = Warp();
  at_barrier_ = ended_ = 0;
  while (ended_ < threads_.size() && failure_.empty()) {
    if (order_ == Order::kRandom) {
      for (size_t i = turns_.size() - 1; i > 0; --i) {
        seed_ = seed_ * 1664525 + 1013904223;
        std::swap(turns_[i], turns_[(seed_ >> 8) % (i + 1)]);
      }
    }
    bool progress = false;
    for (const uint32_t turn : turns_) {
      if (threads_[turn].state != State::kReady) continue;
      progress = true;
      current_ = turn;
      scheduler_.leave_for(threads_[turn].place);
      if (!failure_.empty()) break;
    }
    if (!progress) failure_ = describe_deadlock();
  }
  running = nullptr;
  if (!failure_.empty()) stacks().forget();
  return failure_;
}

std::string Block::describe_deadlock() const {
  uint32_t in_warps = 0;
  const char* kind = "";
  for (const Warp& warp : warps_) {
    if (warp.threads == 0) continue;
    in_warps += warp.threads;
    kind = warp.kind;
  }
  return std::string(kernel_.name) + ": of " + std::to_string(threads_.size()) + " threads of a block " + std::to_string(ended_) +
         " have ended, " + std::to_string(at_barrier_) + " wait at a barrier and " + std::to_string(in_warps) + " in " +
         (in_warps == 0 ? "operations of a warp" : kind) + ", which the others do not reach.";
}

void Block::pause(State state) {
  Thread& thread = threads_[current_];
  thread.state = state;
  thread.place.leave_for(scheduler_);
}

void Block::fail(const char* message, const char* first, const char* second) {
  if (failure_.empty()) failure_ = std::string(kernel_.name) + ": " + message + " " + first + " " + second;
  // Nothing goes on after that, and nothing is left on this stack.
  pause(State::kEnded);
}

void Block::barrier() {
  if (++at_barrier_ < threads_.size()) return pause(State::kAtBarrier);
  at_barrier_ = 0;
  for (Thread& thread : threads_) thread.state = State::kReady;
}

const void* Block::exchange_bytes(const char* kind, const void* value, size_t bytes) {
  Warp& warp = warps_[current_ / kWarpThreads];
  Thread& thread = threads_[current_];
  uint8_t* const values = warp.values[thread.exchanges++ % 2];
  std::memcpy(values + lane() * bytes, value, bytes);
  if (warp.threads == 0) warp.kind = kind;
  if (std::strcmp(warp.kind, kind) != 0) fail("threads of a warp do at once", warp.kind, kind);
  if (++warp.threads < kWarpThreads) {
    pause(State::kInWarp);
    return values;
  }
  warp.threads = 0;
  const uint32_t first = current_ / kWarpThreads * kWarpThreads;
  for (uint32_t i = first; i < first + kWarpThreads; ++i) threads_[i].state = State::kReady;
  return values;
}

void Block::check_aligned(const char* kind, const void* address, uint32_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail("an address that is not aligned:", kind);
}

void Block::copy_later(void* target, const void* source, uint32_t bytes) {
  check_aligned("cp.async", target, bytes);
  check_aligned("cp.async", source, bytes);
  threads_[current_].copies.push_back({target, source, bytes});
}

void Block::commit_copies() {
  Thread& thread = threads_[current_];
  thread.copy_groups.push_back(std::move(thread.copies));
  thread.copies.clear();
}

void Block::wait_for_copies(size_t groups_left) {
  std::vector<std::vector<Copy>>& groups = threads_[current_].copy_groups;
  while (groups.size() > groups_left) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.target, copy.source, copy.bytes);
    groups.erase(groups.begin());
  }
}

Registration::Registration(const Kernel& kernel) {
  if (!kernels().emplace(kernel.name, kernel).second) throw std::logic_error(std::string("Two kernels are called ") + kernel.name);
}

const Kernel* find_kernel(std::string_view name) {
  const auto found = kernels().find(name);
  return found == kernels().end() ? nullptr : &found->second;
}

std::string launch(const Kernel& kernel, Grid grid, uint32_t threads, uint32_t shared_bytes, const void* arguments, Order order) {
  if (threads == 0 || threads > kernel.max_threads || threads % kWarpThreads != 0) {
    return std::string(kernel.name) + ": blocks of " + std::to_string(threads) + " threads";
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    return std::string(kernel.name) + ": a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z);
  }
  Block block(kernel, threads, shared_bytes, arguments, order);
  for (uint32_t z = 0; z < grid.z; ++z) {
    for (uint32_t y = 0; y < grid.y; ++y) {
      for (uint32_t x = 0; x < grid.x; ++x) {
        const std::string failure = block.run(x, y, z);
        if (!failure.empty()) return failure;
      }
    }
  }
  return {};
}

}  // namespace layerstream::cuda_host
