// An op with the memory that it finds and the memory that it must leave, and the ways to run it.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "../../native/backend/device.h"
#include "../../native/cpu/execute.h"

namespace layerstream::test {

inline int checks = 0;
inline std::mt19937 generator(3);

inline void check(bool condition, const char* where, const char* what, size_t index) {
  checks++;
  if (condition) return;
  fprintf(stderr, "%s: %s (at %zu)\n", where, what, index);
  exit(1);
}

inline uint32_t uniform(uint32_t low, uint32_t high) { return std::uniform_int_distribution<uint32_t>(low, high)(generator); }
inline bool coin() { return uniform(0, 1) == 1; }

// Floats or words of the problem's memory.
struct Region {
  size_t first = 0, count = 0;  // count 0: absent

  Range in(Buffer* buffer) const { return count == 0 ? Range{} : Range{buffer, first * 4, count * 4}; }
};

// Regions have NaN between them and, where rows are narrower than their stride, within them: what an op must neither
// use nor change.
struct Problem {
  explicit Problem(const char* title) : name(title) {}

  const char* name;
  std::vector<float> memory;
  std::vector<double> expected;  // of the changed places; NaN elsewhere, where no bit may change
  std::function<Op(Buffer*)> op;
  double tolerance = 4e-6;  // relative and absolute

  Region add(size_t rows, size_t width, size_t stride) {
    const Region region{memory.size(), rows * stride};
    memory.resize(memory.size() + rows * stride + 5, std::numeric_limits<float>::quiet_NaN());
    std::normal_distribution<float> normal;
    for (size_t row = 0; row < rows; row++) {
      for (size_t i = 0; i < width; i++) memory[region.first + row * stride + i] = normal(generator);
    }
    expected.resize(memory.size(), std::numeric_limits<double>::quiet_NaN());
    return region;
  }
  Region add_maybe(size_t count) { return coin() ? add(1, count, count) : Region{}; }
  Region add_words(const std::vector<uint32_t>& words) {
    const Region region = add(1, 0, words.size());
    std::memcpy(&memory[region.first], words.data(), words.size() * sizeof(uint32_t));
    return region;
  }
  double value(const Region& region, size_t index) const { return memory[region.first + index]; }
  void expect(const Region& region, size_t index, double value) { expected[region.first + index] = value; }
};

inline void verify(const Problem& problem, const std::vector<float>& actual, const char* where) {
  for (size_t i = 0; i < actual.size(); i++) {
    const double expected = problem.expected[i];
    if (std::isnan(expected)) {
      check(std::memcmp(&actual[i], &problem.memory[i], sizeof(float)) == 0, where, problem.name, i);
    } else {
      check(std::abs(actual[i] - expected) <= problem.tolerance * (1 + std::abs(expected)), where, problem.name, i);
    }
  }
}

inline std::vector<float> execute(const Problem& problem, cpu::Executor& executor) {
  std::vector<float> memory = problem.memory;
  cpu::CpuBuffer buffer(memory.data());
  executor.execute(problem.op(&buffer));
  return memory;
}

inline std::vector<float> launch(const Problem& problem, Device& device) {
  const uint64_t bytes = problem.memory.size() * sizeof(float);
  void* host = device.alloc_pinned(bytes);
  Buffer* buffer = device.alloc(bytes);
  Stream* stream = device.create_stream();
  Event* event = device.create_event();
  std::memcpy(host, problem.memory.data(), bytes);
  const Op op = problem.op(buffer);
  check(device.supports(op), problem.name, "supported", 0);
  device.upload(stream, {buffer, 0, bytes}, host);
  device.launch(stream, {&op, 1});
  device.download(stream, host, {buffer, 0, bytes});
  device.record(event, stream);
  device.synchronize(event);
  std::vector<float> memory(problem.memory.size());
  std::memcpy(memory.data(), host, bytes);
  device.destroy(event);
  device.destroy(stream);
  device.free(buffer);
  device.free_pinned(host);
  return memory;
}

}  // namespace layerstream::test
