// Rows of random weights in every format, of sizes that can be summed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "format.h"

namespace layerstream {

class RandomRows {
 public:
  explicit RandomRows(uint32_t seed) : generator_(seed) {}

  uint32_t uniform(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(generator_);
  }
  float normal() { return std::normal_distribution<float>()(generator_); }

  // Random codes and scales, of sizes that can be summed; codes past the end are random where the format allows it.
  void fill(Format format, uint8_t* row, uint32_t columns, uint32_t block) {
    const size_t bytes = row_bytes(format, columns, block);
    const FormatTraits& traits = traits_of(format);
    for (size_t i = 0; i < bytes; ++i) row[i] = static_cast<uint8_t>(uniform(0, 255));
    switch (traits.blocks) {
      case Blocks::kNone:
        return fill_elements(format, row, columns);
      case Blocks::kPowerOfTwo: {
        const size_t groups = (size_t{columns} + block - 1) / block;
        std::memset(row + columns, 0, groups * block - columns);
        return put_halves(row + groups * block, groups, 2);
      }
      case Blocks::kMultiple: {
        const size_t groups = (size_t{columns} + block - 1) / block;
        if (format != Format::kFp8) return put_halves(row + bytes - 3 * groups, groups, 2);
        for (uint32_t c = 0; c < columns; ++c) {
          if ((row[c] & 127) == 127) row[c] ^= 1;  // NaN
        }
        return put_floats(row + columns, groups);
      }
      case Blocks::kFixed: {
        const size_t groups = (size_t{columns} + traits.block - 1) / traits.block;
        uint8_t* const scales = row + bytes - groups * traits.group_bytes;
        if (format == Format::kQ4) return put_halves(scales, groups, 2);
        if (format == Format::kNf4) return put_floats(scales, groups);
        for (size_t i = 0; i < groups; ++i) scales[i] = static_cast<uint8_t>(uniform(120, 132));
        return;
      }
      case Blocks::kWhole:
        return put_block_scales(format, row, columns / traits.block);
      case Blocks::kEscapes:
        return fill_windows(row, columns, block);
    }
  }

  void put_half(uint8_t* target, float low, float high) {
    const float magnitude = low + (high - low) * static_cast<float>(uniform(0, 100)) / 100;
    const uint32_t exponent = static_cast<uint32_t>(15 + std::lround(std::log2(magnitude)));
    const uint16_t half = static_cast<uint16_t>(exponent << 10 | uniform(0, 1023) | uniform(0, 1) << 15);
    std::memcpy(target, &half, sizeof half);
  }

 private:
  // Weights below 1, and some escapes as long as there is room.
  void fill_windows(uint8_t* row, uint32_t columns, uint32_t block) {
    uint8_t* header = row + block;
    uint8_t* data = header + size_t{3} * ((columns + 511) / 512);
    uint32_t used = 0;
    for (uint32_t i = 0; i < block; ++i) row[i] = static_cast<uint8_t>(uniform(92, 122));
    for (uint32_t first = 0; first < columns; first += 512, header += 3) {
      const uint32_t steps = (std::min(columns - first, 512u) + 63) / 64;
      header[0] = static_cast<uint8_t>(uniform(110, 116));
      const uint16_t begin = static_cast<uint16_t>(used);
      std::memcpy(header + 1, &begin, sizeof begin);
      uint8_t* const codes = data + size_t{64} * steps;
      std::memset(codes, 0, size_t{24} * steps);
      for (uint32_t place = 0; place < 64 * steps; ++place) {
        const bool escapes = used < block && uniform(0, 15) == 0;
        used += escapes ? 1 : 0;
        const uint32_t code = escapes ? 7 : uniform(0, 6);
        for (uint32_t i = 0; i < 3; ++i) codes[(3 * place + i) / 8] |= static_cast<uint8_t>((code >> i & 1) << (3 * place + i) % 8);
      }
      data += size_t{88} * steps;
    }
  }

  void fill_elements(Format format, uint8_t* row, uint32_t columns) {
    for (uint32_t c = 0; c < columns; ++c) {
      const float value = normal();
      if (format == Format::kF32) std::memcpy(row + 4 * size_t{c}, &value, 4);
      if (format == Format::kBF16) std::memcpy(row + 2 * size_t{c}, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
      if (format == Format::kF16) put_half(row + 2 * size_t{c}, 0.01f, 2.0f);
    }
  }

  void put_halves(uint8_t* target, size_t count, size_t stride) {
    for (size_t i = 0; i < count; ++i) put_half(target + i * stride, 0.05f, 1.0f);
  }

  void put_floats(uint8_t* target, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const float scale = normal();
      std::memcpy(target + 4 * i, &scale, 4);
    }
  }

  void put_block_scales(Format format, uint8_t* row, uint32_t blocks) {
    const uint32_t columns = traits_of(format).block;
    const size_t bytes = row_bytes(format, columns, columns);
    const bool two = format == Format::kQ4_1 || format == Format::kQ5_1 || format == Format::kQ2K ||
                     format == Format::kQ4K || format == Format::kQ5K;
    const size_t first = format == Format::kQ2K   ? 80
                         : format == Format::kQ3K ? 108
                         : format == Format::kQ6K ? 208
                                                  : 0;
    for (uint32_t b = 0; b < blocks; ++b) put_halves(row + b * bytes + first, two ? 2 : 1, 2);
  }

  std::mt19937 generator_;
};

}  // namespace layerstream
