// E4M3 without infinities (OCP 8-bit Floating Point): sign, 4 bits of exponent with bias 7, 3 of mantissa; 0x7f is NaN.
#pragma once

#include <cstdint>

namespace layerstream::cpu {

struct Float8Magnitudes {
  uint16_t of[128];  // by the low seven bits of a code, as bfloat16, which holds all of them exactly
};

constexpr Float8Magnitudes make_float8_magnitudes() {
  Float8Magnitudes magnitudes = {};
  for (int code = 1; code < 128; ++code) {
    int exponent = code >> 3;
    int mantissa = code & 7;
    if (exponent == 0) {
      for (exponent = 1; mantissa < 8; --exponent) mantissa <<= 1;
      mantissa &= 7;
    }
    magnitudes.of[code] = static_cast<uint16_t>((exponent - 7 + 127) << 7 | mantissa << 4);
  }
  magnitudes.of[127] = 0x7fc0;
  return magnitudes;
}

constexpr Float8Magnitudes kFloat8Magnitudes = make_float8_magnitudes();

}  // namespace layerstream::cpu
