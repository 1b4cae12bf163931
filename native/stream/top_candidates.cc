#include "top_candidates.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace layerstream {

namespace {

constexpr size_t kLanes = 16;
constexpr size_t kBlock = 64;
// With fewer blocks for each value that is wanted, most blocks would have one.
constexpr size_t kBlocksPerValue = 2;

// In lanes, so that compilers use vectors.
float greatest(const float* values) {
  float best[kLanes];
  std::copy(values, values + kLanes, best);
  for (size_t index = kLanes; index < kBlock; index += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) best[lane] = std::max(best[lane], values[index + lane]);
  }
  return *std::max_element(best, best + kLanes);
}

}  // namespace

size_t top_candidates(std::span<const float> values, uint64_t count, std::span<uint32_t> indices) {
  const size_t blocks = values.size() / kBlock;
  if (count == 0 || count > blocks / kBlocksPerValue) {
    std::iota(indices.begin(), indices.begin() + static_cast<std::ptrdiff_t>(values.size()), 0);
    return values.size();
  }
  std::vector<float> maxima(blocks);
  for (size_t block = 0; block < blocks; ++block) maxima[block] = greatest(values.data() + block * kBlock);
  // So many blocks have a value from here on.
  std::vector<float> ordered = maxima;
  std::nth_element(ordered.begin(), ordered.begin() + static_cast<std::ptrdiff_t>(count - 1), ordered.end(), std::greater<>());
  const float bound = ordered[count - 1];
  size_t found = 0;
  const auto look = [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      if (values[index] >= bound) indices[found++] = static_cast<uint32_t>(index);
    }
  };
  for (size_t block = 0; block < blocks; ++block) {
    if (maxima[block] >= bound) look(block * kBlock, (block + 1) * kBlock);
  }
  look(blocks * kBlock, values.size());
  return found;
}

}  // namespace layerstream
