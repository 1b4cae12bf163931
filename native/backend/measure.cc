#include "measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "../platform/memory.h"
#include "device_session.h"

namespace layerstream {

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kCopyBytes = uint64_t{64} << 20;
constexpr uint64_t kMemoryBytes = uint64_t{256} << 20;  // more than any cache holds
constexpr uint64_t kLeastBytes = uint64_t{1} << 20;
// Enqueued before the host waits: what it takes to start one and to hear of its end is not counted.
constexpr uint32_t kTogether = 4;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// At most `wanted`, and leaves half of what is free to others.
uint64_t affordable(const Device& device, uint64_t wanted) {
  return std::max(kLeastBytes, std::min(wanted, align_down(device.free_bytes() / 2, kLeastBytes)));
}

// How often a second enqueue(stream) runs.
template <class Enqueue>
double frequency(DeviceSession& session, double seconds, const Enqueue& enqueue) {
  const auto run = [&](uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) enqueue(session.stream());
    session.finish();
  };
  run(1);  // memory is there from here on
  uint64_t count = 0;
  const Clock::time_point start = Clock::now();
  do {
    run(kTogether);
    count += kTogether;
  } while (seconds_since(start) < seconds);
  return static_cast<double>(count) / seconds_since(start);
}

// Runs body(thread) on `threads` threads at once.
template <typename Body>
void on_threads(uint32_t threads, const Body& body) {
  std::vector<std::thread> others;
  for (uint32_t thread = 1; thread < threads; ++thread) others.emplace_back([&body, thread] { body(thread); });
  body(0u);
  for (std::thread& other : others) other.join();
}

// Fetched ahead, as the kernels do: without, memory gives a tenth less.
uint64_t sum_words(const uint8_t* data, size_t bytes) {
  constexpr size_t kAheadBytes = 32 << 10;
  uint64_t sums[8] = {};
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  for (size_t word = 0; word + 8 <= bytes / 8; word += 8) {
    __builtin_prefetch(data + word * 8 + kAheadBytes, 0, 2);
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += words[word + lane];
  }
  uint64_t sum = 0;
  for (const uint64_t lane : sums) sum += lane;
  return sum;
}

}  // namespace

double measure_copy_rate(Device& device, double seconds) {
  if (device.info().unified) return 0;
  DeviceSession session(device);
  const uint64_t bytes = affordable(device, kCopyBytes);
  const Range target = session.alloc(bytes);
  void* const source = session.alloc_pinned(bytes);
  std::memset(source, 0, bytes);
  return static_cast<double>(bytes) * frequency(session, seconds, [&](Stream* stream) { device.upload(stream, target, source); });
}

double measure_memory_rate(Device& device, double seconds) {
  const DeviceInfo info = device.info();
  if (info.unified) return measure_host_memory_rate(kMemoryBytes, std::max(1u, info.threads), seconds);
  DeviceSession session(device);
  const uint64_t half = affordable(device, kMemoryBytes) / 2;
  const Range memory = session.alloc(2 * half);
  return static_cast<double>(2 * half) *
         frequency(session, seconds, [&](Stream* stream) { device.copy(stream, memory.at(half, half), memory.at(0, half)); });
}

double measure_host_memory_rate(uint64_t bytes, uint32_t threads, double seconds) {
  Arena memory(bytes);
  memory.touch();
  const size_t part = align_down(bytes / threads, 64);
  std::atomic<uint64_t> sink{0};
  uint64_t rounds = 0;
  const Clock::time_point start = Clock::now();
  do {
    on_threads(threads, [&](uint32_t thread) { sink += sum_words(memory.data() + thread * part, part); });
    ++rounds;
  } while (seconds_since(start) < seconds);
  return static_cast<double>(rounds * part * threads) / seconds_since(start);
}

}  // namespace layerstream
