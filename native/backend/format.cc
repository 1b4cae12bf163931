#include "format.h"

#include <bit>
#include <cstring>

namespace layerstream {

namespace {

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 0x1f;
  uint32_t mantissa = half & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

}  // namespace

void to_float32(Format format, const uint8_t* source, size_t count, float* output) {
  for (size_t i = 0; i < count; ++i) {
    if (format == Format::kF32) {
      std::memcpy(&output[i], source + 4 * i, 4);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, 2);
    output[i] = format == Format::kF16 ? from_half(bits) : std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
}

}  // namespace layerstream
