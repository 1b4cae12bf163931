// Greedy choice of a token, on the host.
#pragma once

#include <cstdint>
#include <span>

namespace layerstream {

// Index of the first of the greatest values; -1 if one is NaN, or the greatest is not finite.
int64_t first_maximum(std::span<const float> values);

}  // namespace layerstream
