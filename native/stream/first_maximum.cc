#include "first_maximum.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace layerstream {

namespace {

constexpr size_t kLanes = 32;
// So many values stay in the cache while the maximum is looked for among them.
constexpr size_t kBlock = 1024;

// The greatest of the values, NaN left out; `nan` is set if there is any. In lanes, so that compilers use vectors.
float greatest(const float* values, size_t count, bool* nan) {
  float best[kLanes];
  uint32_t unordered[kLanes] = {};
  std::fill(best, best + kLanes, -std::numeric_limits<float>::infinity());
  const auto take = [&](size_t lane, float value) {
    best[lane] = value > best[lane] ? value : best[lane];
    unordered[lane] |= value != value;
  };
  size_t index = 0;
  for (; index + kLanes <= count; index += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) take(lane, values[index + lane]);
  }
  for (; index < count; ++index) take(0, values[index]);
  *nan = *nan || std::any_of(unordered, unordered + kLanes, [](uint32_t flag) { return flag != 0; });
  return *std::max_element(best, best + kLanes);
}

}  // namespace

int64_t first_maximum(std::span<const float> values) {
  float best = -std::numeric_limits<float>::infinity();
  size_t block = 0;
  bool nan = false;
  for (size_t begin = 0; begin < values.size(); begin += kBlock) {
    const float value = greatest(values.data() + begin, std::min(kBlock, values.size() - begin), &nan);
    if (!(value > best)) continue;
    best = value;
    block = begin;
  }
  if (nan || !std::isfinite(best)) return -1;
  return std::find(values.begin() + static_cast<std::ptrdiff_t>(block), values.end(), best) - values.begin();
}

}  // namespace layerstream
