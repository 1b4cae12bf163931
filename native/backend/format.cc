#include "format.h"

#include <bit>
#include <cstring>

#include "../platform/half.h"

namespace layerstream {

void to_float32(Format format, const uint8_t* source, size_t count, float* output) {
  for (size_t i = 0; i < count; ++i) {
    if (format == Format::kF32) {
      std::memcpy(&output[i], source + 4 * i, 4);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, 2);
    output[i] = format == Format::kF16 ? float_from_half(bits) : std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
}

}  // namespace layerstream
