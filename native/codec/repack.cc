#include "repack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "../platform/half.h"

namespace layerstream {

namespace {

constexpr uint32_t kStep = 64;         // columns of a step of codes
constexpr uint32_t kInterleavedRows = 8;
constexpr uint8_t kInterleavedShift[kInterleavedRows] = {0, 16, 4, 20, 8, 24, 12, 28};
constexpr uint32_t kTile = 64;         // columns in which the rows of a word are written one after the other

uint32_t load_word(const uint8_t* data) {
  return uint32_t{data[0]} | uint32_t{data[1]} << 8 | uint32_t{data[2]} << 16 | uint32_t{data[3]} << 24;
}

void unpack_stream(const uint8_t* row, uint32_t bits, uint32_t first, uint32_t columns, uint8_t* output) {
  const uint32_t mask = (1u << bits) - 1;
  for (uint32_t c = 0; c < columns; ++c) {
    const size_t bit = (size_t{first} + c) * bits;
    const uint32_t shift = bit % 8;
    uint32_t window = row[bit / 8];
    if (shift + bits > 8) window |= uint32_t{row[bit / 8 + 1]} << 8;
    output[c] = static_cast<uint8_t>((window >> shift) & mask);
  }
}

void unpack_nibbles(const uint8_t* row, uint32_t swap, uint32_t first, uint32_t columns, uint8_t* output) {
  uint32_t c = 0;
  const auto nibble = [&](size_t index) { return static_cast<uint8_t>((row[index / 2] >> (((index & 1) ^ swap) * 4)) & 15); };
  if (first % 2 != 0 && columns > 0) output[c++] = nibble(first);
  const uint8_t* bytes = row + (size_t{first} + c) / 2;
  const uint32_t low = swap ? 4 : 0;
  const uint32_t high = 4 - low;
  for (; c + 1 < columns; c += 2, ++bytes) {
    output[c] = (*bytes >> low) & 15;
    output[c + 1] = (*bytes >> high) & 15;
  }
  if (c < columns) output[c] = nibble(size_t{first} + c);
}

void unpack_interleaved(const PackedCodes& codes, uint8_t* output) {
  for (uint32_t row = 0; row < codes.rows; row += kInterleavedRows) {
    const uint8_t* words = codes.data + size_t{row} / kInterleavedRows * codes.columns * 4;
    uint8_t* rows = output + size_t{row} * codes.columns;
    for (uint32_t tile = 0; tile < codes.columns; tile += kTile) {
      const uint32_t end = std::min(codes.columns, tile + kTile);
      for (uint32_t i = 0; i < kInterleavedRows; ++i) {
        uint8_t* target = rows + size_t{i} * codes.columns;
        for (uint32_t c = tile; c < end; ++c) {
          target[c] = (load_word(words + size_t{c} * 4) >> kInterleavedShift[i]) & 15;
        }
      }
    }
  }
}

// 64 codes as a step of uint4.
void pack_nibbles(const uint8_t* codes, uint8_t* output) {
  for (uint32_t half = 0; half < 2; ++half, codes += 32, output += 16) {
    for (uint32_t l = 0; l < 16; ++l) output[l] = static_cast<uint8_t>(codes[l] | codes[16 + l] << 4);
  }
}

void pack_pairs(const uint8_t* codes, uint8_t* output) {
  for (uint32_t l = 0; l < 16; ++l) {
    output[l] = static_cast<uint8_t>((codes[l] & 3) | (codes[16 + l] & 3) << 2 | (codes[32 + l] & 3) << 4 |
                                     (codes[48 + l] & 3) << 6);
  }
}

void pack_high_bits(const uint8_t* codes, uint8_t* output) {
  for (uint32_t byte = 0; byte < 8; ++byte) {
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 8; ++i) bits |= (uint32_t{codes[8 * byte + i]} >> 2 & 1) << i;
    output[byte] = static_cast<uint8_t>(bits);
  }
}

// Returns where the codes end.
uint8_t* pack_codes(const uint8_t* codes, uint32_t columns, Format format, uint8_t* output) {
  if (format == Format::kFp8) {
    std::memcpy(output, codes, columns);
    return output + columns;
  }
  for (uint32_t c = 0; c < columns; c += kStep) {
    const uint8_t* step = codes + c;
    uint8_t partial[kStep] = {};
    if (columns - c < kStep) {
      std::memcpy(partial, step, columns - c);
      step = partial;
    }
    switch (format) {
      case Format::kU2:
        pack_pairs(step, output);
        output += 16;
        break;
      case Format::kU3:
        pack_pairs(step, output);
        pack_high_bits(step, output + 16);
        output += 24;
        break;
      case Format::kU8:
        std::memcpy(output, step, kStep);
        output += 64;
        break;
      default:
        pack_nibbles(step, output);
        output += 32;
    }
  }
  return output;
}

// False for what is not exact; the sign of zero and infinities count, NaN stays NaN.
bool exact_half(float value, uint8_t* output) {
  uint16_t half = 0;
  if (std::isnan(value)) {
    half = 0x7e00;
  } else if (std::isinf(value)) {
    half = value > 0 ? 0x7c00 : 0xfc00;
  } else {
    if (std::fabs(value) > kLargestHalf) return false;
    half = half_nearest(value);
    if (float_bits(float_from_half(half)) != float_bits(value)) return false;
  }
  output[0] = static_cast<uint8_t>(half);
  output[1] = static_cast<uint8_t>(half >> 8);
  return true;
}

// E8M0: the exponent's byte of a float32, whose 0 means 2^-127 here.
bool exact_exponent(float value, uint8_t* output) {
  const uint32_t bits = float_bits(value);
  if (bits != 0x00400000 && ((bits & 0x807fffff) != 0 || bits == 0 || bits == 0x7f800000)) return false;
  *output = static_cast<uint8_t>(bits >> 23);
  return true;
}

bool pack_scale(Format format, float scale, uint8_t*& output) {
  switch (format) {
    case Format::kFp8:
    case Format::kNf4: {
      const uint32_t bits = float_bits(scale);
      for (uint32_t i = 0; i < 4; ++i) *output++ = static_cast<uint8_t>(bits >> (8 * i));
      return true;
    }
    case Format::kMxfp4:
      return exact_exponent(scale, output++);
    default:
      output += 2;
      return exact_half(scale, output - 2);
  }
}

uint32_t group_at(const ScaledCodes& codes, uint32_t block) { return codes.group_of ? codes.group_of[block] : block; }

uint32_t block_count(const ScaledCodes& codes) {
  return static_cast<uint32_t>((uint64_t{codes.columns} + codes.block - 1) / codes.block);
}

}  // namespace

size_t packed_bytes(const PackedCodes& codes) {
  if (codes.rows == 0) return 0;
  if (codes.packing == CodePacking::kInterleaved) {
    return (size_t{codes.rows} + kInterleavedRows - 1) / kInterleavedRows * codes.columns * 4;
  }
  const size_t last = ((size_t{codes.first} + codes.columns) * codes.bits + 7) / 8;
  return (size_t{codes.rows} - 1) * codes.row_bytes + last;
}

void unpack_codes(const PackedCodes& codes, uint8_t* output) {
  if (codes.packing == CodePacking::kInterleaved) return unpack_interleaved(codes, output);
  for (uint32_t row = 0; row < codes.rows; ++row, output += codes.columns) {
    const uint8_t* data = codes.data + row * codes.row_bytes;
    if (codes.packing == CodePacking::kHighNibbles) {
      unpack_nibbles(data, 1, codes.first, codes.columns, output);
    } else if (codes.bits == 4) {
      unpack_nibbles(data, 0, codes.first, codes.columns, output);
    } else if (codes.bits == 8) {
      std::memcpy(output, data + codes.first, codes.columns);
    } else {
      unpack_stream(data, codes.bits, codes.first, codes.columns, output);
    }
  }
}

bool pack_rows(const ScaledCodes& codes, const uint32_t* order, Format format, uint8_t* output) {
  const uint32_t blocks = block_count(codes);
  uint8_t step[kStep];
  bool exact = true;
  for (uint32_t row = 0; row < codes.rows && exact; ++row) {
    const uint8_t* source = codes.codes + size_t{row} * codes.columns;
    if (order == nullptr) {
      output = pack_codes(source, codes.columns, format, output);
    } else {
      for (uint32_t c = 0; c < codes.columns; c += kStep) {
        const uint32_t count = std::min(kStep, codes.columns - c);
        for (uint32_t i = 0; i < count; ++i) step[i] = source[order[c + i]];
        output = pack_codes(step, count, format, output);
      }
    }
    const size_t groups = size_t{row} * codes.groups;
    for (uint32_t b = 0; b < blocks; ++b) exact &= pack_scale(format, codes.scales[groups + group_at(codes, b)], output);
    if (codes.zeros == nullptr) continue;
    for (uint32_t b = 0; b < blocks; ++b) *output++ = codes.zeros[groups + group_at(codes, b)];
  }
  return exact;
}

void expand_rows(const ScaledCodes& codes, const float* levels, float* output) {
  const uint32_t blocks = block_count(codes);
  for (uint32_t row = 0; row < codes.rows; ++row) {
    const uint8_t* source = codes.codes + size_t{row} * codes.columns;
    const size_t groups = size_t{row} * codes.groups;
    for (uint32_t b = 0; b < blocks; ++b) {
      const uint32_t first = b * codes.block;
      const uint32_t count = std::min(codes.block, codes.columns - first);
      const size_t group = groups + group_at(codes, b);
      const float scale = codes.scales[group];
      const int32_t zero = codes.zeros ? codes.zeros[group] : 0;
      for (uint32_t c = first; c < first + count; ++c) {
        *output++ = (levels ? levels[source[c]] : static_cast<float>(source[c] - zero)) * scale;
      }
    }
  }
}

}  // namespace layerstream
