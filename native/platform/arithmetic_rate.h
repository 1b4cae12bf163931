// What a processor can compute at most: the yardstick of products and attention.
#pragma once

#include <cstdint>

namespace layerstream {

// Float32 operations a second (a multiply-add is two) of so many threads for `seconds`, in registers alone, with the widest
// multiply-add that this processor has and this file knows. Seconds of processor time: other programs do not count.
double multiply_add_rate(uint32_t threads, double seconds);

}  // namespace layerstream
