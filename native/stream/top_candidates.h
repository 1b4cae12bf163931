// A first choice among many values, on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace layerstream {

// Writes the ascending indices of all values from some bound on, at least `count` of them and few more where `count` is
// small: whatever is among the `count` greatest, equal ones too, is there. `indices` has room for all. NaN has no place in `values`.
size_t top_candidates(std::span<const float> values, uint64_t count, std::span<uint32_t> indices);

}  // namespace layerstream
