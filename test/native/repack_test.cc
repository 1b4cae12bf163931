// Repacking against readers and writers that follow the layouts bit by bit.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "../../native/codec/repack.h"
#include "../../native/platform/half.h"

using namespace layerstream;

namespace {

int checks = 0;
std::mt19937 generator(17);

void check(bool condition, const char* what, size_t where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "repack_test: %s (at %zu)\n", what, where);
  exit(1);
}

uint32_t below(uint32_t limit) { return generator() % limit; }

std::vector<uint8_t> random_codes(size_t count, uint32_t bits) {
  std::vector<uint8_t> codes(count);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(below(1u << bits));
  return codes;
}

void set_bit(std::vector<uint8_t>& bytes, size_t bit, uint32_t value) {
  bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] | (value & 1) << (bit % 8));
}

// Of exactly the bytes that it needs, so that the address sanitizer sees a read beyond them.
void test_streams() {
  for (uint32_t bits : {2u, 3u, 4u, 8u}) {
    for (uint32_t columns : {1u, 2u, 7u, 31u, 32u, 33u, 64u, 97u, 200u}) {
      for (uint32_t first : {0u, 1u, 5u, 8u}) {
        const uint32_t rows = 3;
        const size_t row_bytes = (size_t{first + columns} * bits + 7) / 8 + below(3);
        const std::vector<uint8_t> codes = random_codes(rows * columns, bits);
        PackedCodes packed{nullptr, CodePacking::kStream, bits, rows, columns, row_bytes, first};
        std::vector<uint8_t> data(packed_bytes(packed));
        for (uint32_t r = 0; r < rows; r++) {
          for (uint32_t c = 0; c < columns; c++) {
            for (uint32_t b = 0; b < bits; b++) {
              set_bit(data, 8 * r * row_bytes + size_t{first + c} * bits + b, codes[r * columns + c] >> b);
            }
          }
        }
        packed.data = data.data();
        std::vector<uint8_t> output(codes.size());
        unpack_codes(packed, output.data());
        check(output == codes, "stream", bits * 1000 + columns);
      }
    }
  }
}

void test_high_nibbles() {
  for (uint32_t columns : {1u, 2u, 9u, 40u, 41u}) {
    for (uint32_t first : {0u, 1u, 6u}) {
      PackedCodes packed{nullptr, CodePacking::kHighNibbles, 4, 1, columns, 0, first};
      std::vector<uint8_t> data(packed_bytes(packed));
      const std::vector<uint8_t> codes = random_codes(columns, 4);
      for (uint32_t c = 0; c < columns; c++) {
        const uint32_t index = first + c;
        data[index / 2] = static_cast<uint8_t>(data[index / 2] | codes[c] << (index % 2 == 0 ? 4 : 0));
      }
      packed.data = data.data();
      std::vector<uint8_t> output(columns);
      unpack_codes(packed, output.data());
      check(output == codes, "high nibbles", columns);
    }
  }
}

void test_interleaved() {
  // AutoAWQ packs outputs 0, 2, 4, 6, 1, 3, 5, 7 from the lowest nibble on.
  constexpr uint32_t output_of_nibble[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (uint32_t columns : {1u, 5u, 64u, 130u}) {
    for (uint32_t rows : {8u, 24u}) {
      const std::vector<uint8_t> codes = random_codes(rows * columns, 4);
      std::vector<uint8_t> data(rows / 8 * columns * 4);
      for (uint32_t word = 0; word < rows / 8; word++) {
        for (uint32_t c = 0; c < columns; c++) {
          for (uint32_t n = 0; n < 8; n++) {
            const uint8_t code = codes[(8 * word + output_of_nibble[n]) * columns + c];
            uint8_t& byte = data[(word * columns + c) * 4 + n / 2];
            byte = static_cast<uint8_t>(byte | code << (n % 2 * 4));
          }
        }
      }
      const PackedCodes packed{data.data(), CodePacking::kInterleaved, 4, rows, columns, 0, 0};
      check(packed_bytes(packed) == data.size(), "interleaved size", rows);
      std::vector<uint8_t> output(codes.size());
      unpack_codes(packed, output.data());
      check(output == codes, "interleaved", rows * 1000 + columns);
    }
  }
}

uint32_t bits_of(Format format) { return format == Format::kFp8 ? 8 : traits_of(format).bits; }

// The code of column c, as format.h describes a row.
uint32_t code_at(Format format, const uint8_t* row, uint32_t c) {
  const uint32_t step = c / 64, i = c % 64;
  switch (format) {
    case Format::kU2:
      return row[16 * step + i % 16] >> (i / 16 * 2) & 3;
    case Format::kU3:
      return (row[24 * step + i % 16] >> (i / 16 * 2) & 3) | (row[24 * step + 16 + i / 8] >> (i % 8) & 1) << 2;
    case Format::kU8:
    case Format::kFp8:
      return row[c];
    default:
      return row[32 * step + i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15;
  }
}

uint32_t padded_columns(Format format, uint32_t columns) {
  return format == Format::kFp8 ? columns : (columns + 63) / 64 * 64;
}

// A scale that every format holds.
float scale_of(Format format) {
  const int exponent = static_cast<int>(below(20)) - 12;
  if (format == Format::kMxfp4) return std::ldexp(1.0f, below(8) == 0 ? -127 : static_cast<int>(below(255)) - 127);
  if (format == Format::kFp8 || format == Format::kNf4) return std::ldexp(static_cast<float>(below(1u << 24)), exponent);
  return std::ldexp(static_cast<float>(below(2048)) * (below(2) ? 1.0f : -1.0f), exponent - 12);
}

void check_scale(Format format, const uint8_t* data, float expected) {
  if (format == Format::kMxfp4) {
    check(std::ldexp(1.0, *data - 127) == expected, "E8M0 scale", *data);
  } else if (format == Format::kFp8 || format == Format::kNf4) {
    float value;
    std::memcpy(&value, data, 4);
    check(value == expected, "float32 scale", 0);
  } else {
    check(float_from_half(static_cast<uint16_t>(data[0] | data[1] << 8)) == expected, "float16 scale", 0);
  }
}

void test_rows(Format format, uint32_t columns, uint32_t block, bool ordered, bool mapped) {
  const uint32_t rows = 3, blocks = (columns + block - 1) / block, groups = mapped ? blocks + 2 : blocks;
  const uint32_t bits = bits_of(format);
  const bool has_zeros = format >= Format::kU2 && format <= Format::kU8;
  const std::vector<uint8_t> codes = random_codes(rows * columns, bits), zeros = random_codes(rows * groups, bits);
  std::vector<float> scales(rows * groups);
  for (float& scale : scales) scale = scale_of(format);
  std::vector<uint32_t> order(columns), group_of(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), generator);
  for (uint32_t& group : group_of) group = below(groups);
  const ScaledCodes scaled{codes.data(), rows,   columns, block, scales.data(), has_zeros ? zeros.data() : nullptr,
                           groups,       mapped ? group_of.data() : nullptr};

  const size_t bytes = row_bytes(format, columns, block), group_bytes = traits_of(format).group_bytes;
  std::vector<uint8_t> output(rows * bytes, 0xee);
  check(pack_rows(scaled, ordered ? order.data() : nullptr, format, output.data()), "every scale is exact", columns);
  for (uint32_t r = 0; r < rows; r++) {
    const uint8_t* row = output.data() + r * bytes;
    for (uint32_t c = 0; c < padded_columns(format, columns); c++) {
      const uint32_t expected = c >= columns ? 0 : codes[r * columns + (ordered ? order[c] : c)];
      check(code_at(format, row, c) == expected, traits_of(format).name, c);
    }
    const size_t scale_bytes = has_zeros ? 2 : group_bytes;
    const uint8_t* row_scales = row + bytes - blocks * group_bytes;
    for (uint32_t b = 0; b < blocks; b++) {
      const size_t group = r * groups + (mapped ? group_of[b] : b);
      check_scale(format, row_scales + b * scale_bytes, scales[group]);
      if (has_zeros) check(row_scales[blocks * 2 + b] == zeros[group], "zero", b);
    }
  }

  std::vector<float> expanded(rows * columns), levels(256);
  for (uint32_t i = 0; i < 256; i++) levels[i] = static_cast<float>(i) * 0.37f - 3.0f;
  for (bool by_level : {false, true}) {
    expand_rows(scaled, by_level ? levels.data() : nullptr, expanded.data());
    for (uint32_t i = 0; i < rows * columns; i++) {
      const uint32_t b = i % columns / block;
      const size_t group = i / columns * groups + (mapped ? group_of[b] : b);
      const int zero = has_zeros ? zeros[group] : 0;
      const float level = by_level ? levels[codes[i]] : static_cast<float>(codes[i] - zero);
      check(expanded[i] == level * scales[group], "expanded", i);
    }
  }
}

void test_inexact_scales() {
  const uint8_t code = 1, zero = 0;
  uint8_t output[128];
  const auto fits = [&](Format format, float scale) {
    const bool integer = format == Format::kU4;
    return pack_rows({&code, 1, 1, integer ? 16u : 32u, &scale, integer ? &zero : nullptr, 1, nullptr}, nullptr, format, output);
  };
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  size_t i = 0;
  for (float scale : {0.0f, -0.0f, 1.0f, 65504.0f, 0x1p-24f, 0x3p-24f, 0x1.ffcp-5f, infinity, -infinity, nan}) {
    check(fits(Format::kU4, scale), "float16 holds it", i++);
  }
  for (float scale : {0x1p-25f, 0x3p-25f, 0x1.ffep-5f, 65536.0f, 1e30f, 0.1f}) {
    check(!fits(Format::kU4, scale), "float16 does not hold it", i++);
  }
  for (float scale : {0x1p-127f, 0x1p-126f, 1.0f, 0x1p127f, nan}) check(fits(Format::kMxfp4, scale) == !std::isnan(scale), "E8M0", i++);
  for (float scale : {0.0f, -1.0f, 1.5f, 0x1p-128f, infinity}) check(!fits(Format::kMxfp4, scale), "not E8M0", i++);
}

}  // namespace

int main() {
  test_streams();
  test_high_nibbles();
  test_interleaved();
  for (Format format : {Format::kU2, Format::kU3, Format::kU4, Format::kU8, Format::kFp8}) {
    for (uint32_t columns : {1u, 16u, 63u, 64u, 65u, 72u, 130u, 256u}) {
      for (uint32_t block : {16u, 32u, 48u, 128u, columns}) {
        for (bool mapped : {false, true}) test_rows(format, columns, block, block != 48, mapped);
      }
    }
  }
  for (uint32_t columns : {32u, 64u, 96u, 160u}) test_rows(Format::kMxfp4, columns, 32, false, false);
  for (uint32_t columns : {40u, 64u, 128u, 192u}) test_rows(Format::kNf4, columns, 64, false, false);
  test_inexact_scales();
  printf("repack_test: %d checks passed\n", checks);
  return 0;
}
