// Where a row of bf16_window stands: the next escape, and the least exponent of its window. An instruction set with a
// better way to decode has a class of its own instead, with the same constructor and decode().
#if defined(_MSC_VER)
#include <intrin.h>
#endif

#include <bit>

#include "step_codec.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

inline uint32_t lowest_bit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, bits);
  return index;
#else
  return static_cast<uint32_t>(__builtin_ctzll(bits));
#endif
}

// Eight codes of three bits to a byte each.
inline uint64_t spread_codes(uint64_t bits) {
  bits = (bits & 0xfff) | (bits >> 12 & 0xfff) << 32;
  bits = (bits & 0x0000003f0000003f) | (bits & 0x00000fc000000fc0) << 10;
  return (bits & 0x0007000700070007) | (bits & 0x0038003800380038) << 5;
}

class WindowCursor {
 public:
  WindowCursor() = default;
  WindowCursor(const uint8_t* escapes, uint8_t least) : escapes_(escapes), least_(least) {}

  // The weights of a step of which `columns` exist, the others 0; reads up to 5 bytes before the codes. Whatever the
  // bytes, the cursor goes on by no more than 64.
  void decode(const uint8_t* places, const uint8_t* codes, uint32_t columns, Floats weights[kPartVectors]) {
    alignas(kMatmulAlignment) uint8_t exponents[kMatmulStep];
    fill_exponents(codes, exponents);
    for (uint32_t column = columns; column < kMatmulStep; ++column) {
      exponents[run_of(column / 16) + 16 * (column / 8 % 2) + column % 8] = 0;
    }
    for (uint32_t v = 0; v < kPartVectors; ++v) {
      const Integers rest = columns_of(places, v);
      const Integers bits = shift<-23>(columns_of(exponents, v)) | shift<-15>(rest & 254);
      weights[v] = bits_to_floats(bits | shift<-31>(rest));
    }
  }

 private:
  void fill_exponents(const uint8_t* codes, uint8_t* exponents) {
    static_assert(std::endian::native == std::endian::little);
    constexpr uint64_t kOnes = 0x0101010101010101;
    uint64_t escaped = 0;
    for (int group = 0; group < 8; ++group) {
      const uint64_t spread = spread_codes(read<uint64_t>(codes + 3 * group - 5) >> 40);
      // No byte passes 7, so bit 3 of the sum tells the sevens; the product gathers a bit of each byte, first to lowest.
      escaped |= ((((spread + kOnes) >> 3 & kOnes) * 0x0102040810204080) >> 56) << (8 * group);
      for (int i = 0; i < 8; ++i) exponents[8 * group + i] = static_cast<uint8_t>((spread >> (8 * i)) + least_);
    }
    for (; escaped != 0; escaped &= escaped - 1) exponents[lowest_bit(escaped)] = *escapes_++;
  }

  // Sixteen columns are two runs of eight places; those of the second half of a step lie behind those of the first.
  static constexpr size_t run_of(uint32_t v) { return 32 * size_t{v % 2} + 8 * size_t{v / 2}; }

  static Integers columns_of(const uint8_t* places, uint32_t v) {
    return from_bytes(read<uint64_t>(places + run_of(v)), read<uint64_t>(places + run_of(v) + 16));
  }

  const uint8_t* escapes_;
  uint8_t least_;
};

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
