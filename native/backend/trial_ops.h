// Ops on small random operands, each with the formats, widths and options of a given one.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "ops.h"
#include "random_rows.h"

namespace layerstream {

struct TrialRegion {
  uint64_t offset = 0, bytes = 0;

  Range in(Buffer* buffer) const { return {buffer, offset, bytes}; }
};

// What the memory of a trial holds before its ops. The same for the same calls.
class TrialMemory {
 public:
  TrialRegion add(uint64_t bytes);  // zeros
  TrialRegion floats(uint64_t count);  // from -1 to 1
  TrialRegion words(const std::vector<uint32_t>& words);
  TrialRegion weights(Format format, uint32_t rows, uint32_t columns, uint32_t block);
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
  std::mt19937 generator_{1};
  RandomRows rows_{1};
};

struct Trial {
  struct Ready {
    TrialRegion output;                           // float32
    std::function<std::vector<Op>(Buffer*)> ops;  // where the memory begins this buffer
  };

  std::string name;  // the same for the same trial
  std::function<Ready(TrialMemory&)> prepare;
};

// For one token, and where a device may take another way, for many. Of a long row or of many rows a part.
std::vector<Trial> trials_of(const Op& op);

}  // namespace layerstream
