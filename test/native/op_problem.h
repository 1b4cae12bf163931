// Ops with the memory that they find and the memory that they must leave, and the ways to run them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../native/backend/device.h"

namespace layerstream::test {

inline std::mt19937 generator(3);

inline uint32_t uniform(uint32_t low, uint32_t high) { return std::uniform_int_distribution<uint32_t>(low, high)(generator); }
inline bool coin() { return uniform(0, 1) == 1; }
inline float normal() { return std::normal_distribution<float>()(generator); }

// Words of the problem's memory.
struct Region {
  size_t first = 0, count = 0;  // count 0: absent

  Range in(Buffer* buffer) const { return count == 0 ? Range{} : Range{buffer, first * 4, count * 4}; }
};

using Ops = std::function<std::vector<Op>(Buffer*)>;

// Regions have NaN between them and, where rows are narrower than their stride, within them: what an op must neither
// use nor change.
struct Problem {
  explicit Problem(std::string title) : name(std::move(title)) {}

  std::string name;
  std::vector<float> memory;
  std::vector<float> after;      // the bits to be left where no value is expected
  std::vector<double> expected;  // NaN: none
  std::vector<double> bounds;    // of the difference to it
  Ops ops;
  Region scratch;                // what is left there is nobody's
  Ops parts;                     // the same work divided otherwise, which must leave the same bits; or none
  double tolerance = 4e-6;       // relative and absolute, unless a value has a bound of its own

  Region add(size_t rows, size_t width, size_t stride) {
    const Region region = add_space(rows * stride);
    for (size_t row = 0; row < rows; row++) {
      for (size_t i = 0; i < width; i++) put(region, row * stride + i, normal());
    }
    return region;
  }
  Region add_maybe(size_t count) { return coin() ? add(1, count, count) : Region{}; }
  Region add_words(const std::vector<uint32_t>& words) {
    const Region region = add_space(words.size());
    put_bytes(region, 0, words.data(), words.size() * sizeof(uint32_t));
    return region;
  }
  // On a multiple of 64 bytes, as matrices are.
  Region add_bytes(const std::vector<uint8_t>& bytes) {
    add_space((16 - memory.size() % 16) % 16 + 11);
    const Region region = add_space((bytes.size() + 3) / 4);
    put_bytes(region, 0, bytes.data(), bytes.size());
    return region;
  }
  double value(const Region& region, size_t index) const { return memory[region.first + index]; }
  void put(const Region& region, size_t index, float value) { memory[region.first + index] = after[region.first + index] = value; }
  void put_bytes(const Region& region, size_t offset, const void* source, size_t bytes) {
    std::memcpy(reinterpret_cast<uint8_t*>(&memory[region.first]) + offset, source, bytes);
    leave_bytes(region, offset, source, bytes);
  }
  void expect(const Region& region, size_t index, double value) { expect(region, index, value, tolerance * (1 + std::abs(value))); }
  void expect(const Region& region, size_t index, double value, double bound) {
    expected[region.first + index] = value;
    bounds[region.first + index] = bound;
  }
  void leave_bytes(const Region& region, size_t offset, const void* source, size_t bytes) {
    std::memcpy(reinterpret_cast<uint8_t*>(&after[region.first]) + offset, source, bytes);
  }

 private:
  Region add_space(size_t words) {
    const Region region{memory.size(), words};
    memory.resize(memory.size() + words + 5, std::numeric_limits<float>::quiet_NaN());
    after.resize(memory.size(), std::numeric_limits<float>::quiet_NaN());
    expected.resize(memory.size(), std::numeric_limits<double>::quiet_NaN());
    bounds.resize(memory.size());
    return region;
  }
};

inline size_t verified_words = 0;

inline void verify(const Problem& problem, const std::vector<float>& actual, const char* where) {
  for (size_t i = 0; i < actual.size(); i++) {
    const double expected = problem.expected[i];
    const bool good = std::isnan(expected) ? std::memcmp(&actual[i], &problem.after[i], sizeof(float)) == 0
                                           : std::abs(actual[i] - expected) <= problem.bounds[i];
    if (good) continue;
    fprintf(stderr, "%s: %s: word %zu is %.9g, expected %.9g +- %.3g\n", where, problem.name.c_str(), i, double{actual[i]},
            std::isnan(expected) ? double{problem.after[i]} : expected, problem.bounds[i]);
    exit(1);
  }
  verified_words += actual.size();
}

inline void verify_same(const Problem& problem, const std::vector<float>& a, const std::vector<float>& b, const char* where, const char* what) {
  if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0) return;
  fprintf(stderr, "%s: %s: the result depends on %s\n", where, problem.name.c_str(), what);
  exit(1);
}

// What the ops leave of the problem's memory, which lies in one buffer.
inline std::vector<float> launch(const Problem& problem, const Ops& ops, Device& device) {
  const uint64_t bytes = problem.memory.size() * sizeof(float);
  void* host = device.alloc_pinned(bytes);
  Buffer* buffer = device.alloc(bytes);
  Stream* stream = device.create_stream();
  Event* event = device.create_event();
  std::memcpy(host, problem.memory.data(), bytes);
  device.upload(stream, {buffer, 0, bytes}, host);
  device.launch(stream, ops(buffer));
  device.download(stream, host, {buffer, 0, bytes});
  device.record(event, stream);
  device.synchronize(event);
  std::vector<float> memory(problem.memory.size());
  std::memcpy(memory.data(), host, bytes);
  std::copy_n(problem.memory.begin() + problem.scratch.first, problem.scratch.count, memory.begin() + problem.scratch.first);
  device.destroy(stream);
  device.destroy(event);
  device.free(buffer);
  device.free_pinned(host);
  return memory;
}

}  // namespace layerstream::test
