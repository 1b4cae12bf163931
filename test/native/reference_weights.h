// One weight at a time in float64, from the definitions of format.h and of ggml's blocks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../../native/backend/format.h"
#include "../../native/backend/random_rows.h"

namespace layerstream::reference {

template <typename T>
T read(const uint8_t* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

inline double half_value(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const double mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

inline double half_at(const uint8_t* source) { return half_value(read<uint16_t>(source)); }

inline double float8_value(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double sign = (code & 128) != 0 ? -1.0 : 1.0;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
}

inline double float4_value(uint32_t code) {
  const double sign = (code & 8) != 0 ? -1.0 : 1.0;
  const int exponent = code >> 1 & 3;
  const double mantissa = code & 1;
  return sign * (exponent == 0 ? mantissa / 2 : std::ldexp(1 + mantissa / 2, exponent - 1));
}

// Bits [first, first + count) of a string of bits, lowest of the first byte first.
inline uint32_t bits_at(const uint8_t* source, size_t first, uint32_t count) {
  uint32_t value = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const size_t bit = first + i;
    value |= static_cast<uint32_t>(source[bit / 8] >> (bit % 8) & 1) << i;
  }
  return value;
}

// The nibble of a column in steps whose byte l holds columns l and 16 + l of 32.
inline uint32_t nibble(const uint8_t* codes, uint32_t column) {
  return bits_at(codes, size_t{column} / 32 * 128 + column % 16 * 8 + column / 16 % 2 * 4, 4);
}

inline uint32_t integer_code(uint32_t bits, const uint8_t* codes, uint32_t column) {
  const uint8_t* const step = codes + size_t{column} / 64 * 8 * bits;
  const uint32_t c = column % 64;
  if (bits == 8) return step[c];
  if (bits == 4) return nibble(step, c);
  const uint32_t low = bits_at(step, c % 16 * 8 + c / 16 * 2, 2);
  return bits == 2 ? low : low + 4 * bits_at(step + 16, c, 1);
}

// Scale and minimum of group `group` of q4_k and q5_k.
inline uint32_t k_scale(const uint8_t* scales, uint32_t group, bool minimum) {
  const uint32_t first = minimum ? 4 : 0;
  if (group < 4) return scales[first + group] & 63;
  return (scales[8 + group - 4] >> first & 15) + 16 * (scales[first + group - 4] >> 6);
}

inline double ggml_value(Format format, const uint8_t* row, uint32_t column) {
  const uint32_t columns = traits_of(format).block;
  const uint8_t* const block = row + column / columns * row_bytes(format, columns, columns);
  const uint32_t c = column % columns;
  switch (format) {
    case Format::kQ8_0:
      return half_at(block) * read<int8_t>(block + 2 + c);
    case Format::kQ4_0:
      return half_at(block) * (static_cast<int>(nibble(block + 2, c)) - 8);
    case Format::kQ4_1:
      return half_at(block) * nibble(block + 4, c) + half_at(block + 2);
    case Format::kQ5_0:
      return half_at(block) * (static_cast<int>(nibble(block + 6, c) + 16 * bits_at(block + 2, c, 1)) - 16);
    case Format::kQ5_1:
      return half_at(block) * (nibble(block + 8, c) + 16 * bits_at(block + 4, c, 1)) + half_at(block + 2);
    case Format::kQ2K: {
      const uint32_t code = bits_at(block + 16 + c / 128 * 32 + c % 32, c / 32 % 4 * 2, 2);
      const uint8_t scale = block[c / 16];
      return half_at(block + 80) * (scale & 15) * code - half_at(block + 82) * (scale >> 4);
    }
    case Format::kQ3K: {
      const uint32_t low = bits_at(block + 32 + c / 128 * 32 + c % 32, c / 32 % 4 * 2, 2);
      const int code = static_cast<int>(low) - (bits_at(block + c % 32, c / 32, 1) == 0 ? 4 : 0);
      const uint32_t group = c / 16;
      const uint32_t low_scale = bits_at(block + 96 + group % 8, group / 8 * 4, 4);
      const uint32_t high_scale = bits_at(block + 104 + group % 4, group / 4 * 2, 2);
      return half_at(block + 108) * (static_cast<int>(low_scale + 16 * high_scale) - 32) * code;
    }
    case Format::kQ4K:
    case Format::kQ5K: {
      const uint32_t group = c / 32;
      const uint8_t* const codes = block + (format == Format::kQ4K ? 16 : 48);
      uint32_t code = bits_at(codes + c / 64 * 32 + c % 32, c / 32 % 2 * 4, 4);
      if (format == Format::kQ5K) code += 16 * bits_at(block + 16 + c % 32, group, 1);
      return half_at(block) * k_scale(block + 4, group, false) * code -
             half_at(block + 2) * k_scale(block + 4, group, true);
    }
    default: {
      const uint32_t low = bits_at(block + c / 128 * 64 + c % 64, c / 64 % 2 * 4, 4);
      const uint32_t high = bits_at(block + 128 + c / 128 * 32 + c % 32, c / 32 % 4 * 2, 2);
      return half_at(block + 208) * read<int8_t>(block + 192 + c / 16) * (static_cast<int>(low + 16 * high) - 32);
    }
  }
}

// The bfloat16 of a column, from the definition.
inline uint16_t window_weight(const uint8_t* row, uint32_t columns, uint32_t block, uint32_t column) {
  const uint32_t window = column / 512, windows = (columns + 511) / 512;
  const uint32_t steps = (std::min(columns - 512 * window, 512u) + 63) / 64;
  const uint8_t* const header = row + block + 3 * size_t{window};
  const uint8_t* const plane = row + block + 3 * size_t{windows} + 704 * size_t{window};
  const uint8_t* const codes = plane + 64 * size_t{steps};
  const uint32_t c = column % 64, step = column % 512 / 64;
  const uint32_t place = c < 32 ? c / 8 * 16 + c % 8 : (c - 32) / 8 * 16 + 8 + c % 8;
  const auto code_at = [&](uint32_t p) { return bits_at(codes, 3 * size_t{p}, 3); };
  uint32_t exponent = header[0] + code_at(64 * step + place);
  if (code_at(64 * step + place) == 7) {
    uint32_t escape = std::min(uint32_t{read<uint16_t>(header + 1)}, block);
    for (uint32_t p = 0; p < 64 * step + place; ++p) escape += code_at(p) == 7 ? 1 : 0;
    exponent = row[escape];
  }
  const uint32_t rest = plane[64 * step + place];
  return static_cast<uint16_t>(rest << 15 | (exponent & 255) << 7 | rest >> 1);
}

inline double bfloat_value(uint16_t bfloat) {
  const uint32_t bits = uint32_t{bfloat} << 16;
  return read<float>(reinterpret_cast<const uint8_t*>(&bits));
}

inline double weight_value(Format format, const uint8_t* row, uint32_t columns, uint32_t block, uint32_t column) {
  const size_t steps = (size_t{columns} + 63) / 64;
  const FormatTraits& traits = traits_of(format);
  switch (format) {
    case Format::kF32:
      return read<float>(row + 4 * size_t{column});
    case Format::kF16:
      return half_at(row + 2 * size_t{column});
    case Format::kBF16:
      return bfloat_value(read<uint16_t>(row + 2 * size_t{column}));
    case Format::kBF16Window:
      return bfloat_value(window_weight(row, columns, block, column));
    case Format::kQ8: {
      const size_t codes = (size_t{columns} + block - 1) / block * block;
      return read<int8_t>(row + column) * (half_at(row + codes + 2 * (column / block)) / 127.0);
    }
    case Format::kQ4: {
      const uint32_t within = column % 64;
      const uint32_t lane = read<uint32_t>(row + column / 64 * 32 + 4 * (within % 8));
      return kNormalFloat4[lane >> 4 * (within / 8) & 15] * half_at(row + steps * 32 + 2 * (column / 64));
    }
    case Format::kU2:
    case Format::kU3:
    case Format::kU4:
    case Format::kU8: {
      const uint8_t* const scales = row + steps * 8 * traits.bits;
      const size_t groups = (size_t{columns} + block - 1) / block, group = column / block;
      const int code = static_cast<int>(integer_code(traits.bits, row, column)) - scales[2 * groups + group];
      return code * half_at(scales + 2 * group);
    }
    case Format::kFp8:
      return float8_value(row[column]) * read<float>(row + columns + 4 * size_t{column / block});
    case Format::kMxfp4:
      return std::ldexp(float4_value(nibble(row, column)), row[steps * 32 + column / 32] - 127);
    case Format::kNf4:
      return kNormalFloat4[nibble(row, column)] * double{read<float>(row + steps * 32 + 4 * size_t{column / 64})};
    default:
      return ggml_value(format, row, column);
  }
}

}  // namespace layerstream::reference
