// What generic/window.h asks of an instruction set, in 64-bit words.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace layerstream::cpu {
namespace {

// Eight codes of three bits to a byte each.
inline uint64_t spread_codes(uint64_t bits) {
  bits = (bits & 0xfff) | (bits >> 12 & 0xfff) << 32;
  bits = (bits & 0x0000003f0000003f) | (bits & 0x00000fc000000fc0) << 10;
  return (bits & 0x0007000700070007) | (bits & 0x0038003800380038) << 5;
}

// The exponents of the 64 places of a step, escapes still to be filled in; returns the places of these. Reads up to 8
// bytes before the codes.
inline uint64_t window_exponents(const uint8_t* codes, uint8_t least, uint8_t* exponents) {
  static_assert(std::endian::native == std::endian::little);
  constexpr uint64_t kOnes = 0x0101010101010101;
  uint64_t escapes = 0;
  for (int group = 0; group < 8; ++group) {
    uint64_t word;
    std::memcpy(&word, codes + 3 * group - 5, sizeof word);
    const uint64_t spread = spread_codes(word >> 40);
    // No byte passes 7, so bit 3 of the sum tells the sevens; the product gathers a bit of each byte, first to lowest.
    escapes |= ((((spread + kOnes) >> 3 & kOnes) * 0x0102040810204080) >> 56) << (8 * group);
    for (int i = 0; i < 8; ++i) exponents[8 * group + i] = static_cast<uint8_t>((spread >> (8 * i)) + least);
  }
  return escapes;
}

}  // namespace
}  // namespace layerstream::cpu
