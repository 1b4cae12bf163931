// Weight formats: how one row of a [rows, columns] matrix lies in memory.
//
// Every format is row-major, so that any range of rows is one contiguous range of bytes: rows can be read,
// held, sharded and multiplied in blocks of any size. Rows are not padded to a vector width.
//
//   f32, f16, bf16   `columns` little-endian elements
//   q8               `columns` int8 codes, padded with zeros to a whole number of blocks, then one float16
//                    scale a block:  w = code * (scale / 127). A block is a power of two of columns, at least 32.
//   q4               blocks of 64 columns, 32 bytes each, then one float16 scale a block:
//                    w = kNormalFloat4[code] * scale
//                    A block is 8 little-endian uint32 lanes of 8 nibbles: nibble j (low first) of lane i is
//                    the code of column j * 8 + i. Columns past the end have code 7, whose value is 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

enum class Format : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kCount };

constexpr size_t kFormatCount = static_cast<size_t>(Format::kCount);
constexpr uint32_t kQ4Block = 64;

// The NF4 levels of QLoRA (Dettmers et al., 2023, appendix E), as bitsandbytes publishes them.
constexpr float kNormalFloat4[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Bytes of one row. `block` is the number of columns that share a scale; it is ignored by unquantized formats.
constexpr size_t row_bytes(Format format, uint32_t columns, uint32_t block) {
  switch (format) {
    case Format::kF32:
      return size_t{4} * columns;
    case Format::kF16:
    case Format::kBF16:
      return size_t{2} * columns;
    case Format::kQ8: {
      const size_t blocks = (size_t{columns} + block - 1) / block;
      return blocks * block + 2 * blocks;
    }
    case Format::kQ4: {
      const size_t blocks = (size_t{columns} + kQ4Block - 1) / kQ4Block;
      return blocks * (kQ4Block / 2) + 2 * blocks;
    }
    case Format::kCount:
      break;
  }
  return 0;
}

// Elements of an unquantized format (f32, f16, bf16) to float32: for vectors, where speed does not matter.
void to_float32(Format format, const uint8_t* source, size_t count, float* output);

}  // namespace layerstream
