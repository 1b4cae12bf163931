// Weight formats: how one row of a [rows, columns] matrix lies in memory.
//
// Every format is row-major, so that any range of rows is one contiguous range of bytes: rows can be read,
// held, sharded and multiplied in blocks of any size. Rows are not padded to a vector width. A group is the `block`
// columns that share a scale; the last group of a row may be short, except in ggml's formats.
//
//   f32, f16, bf16   `columns` little-endian elements
//   8bit             `columns` int8 codes, padded with zeros to a whole number of blocks, then one float16
//                    scale a block:  w = code * (scale / 127). A block is a power of two of columns, at least 32.
//   4bit             steps of 64 columns, 32 bytes each, then one float16 scale a block of 64:
//                    w = kNormalFloat4[code] * scale
//                    A step is 8 little-endian uint32 lanes of 8 nibbles: nibble j (low first) of lane i is
//                    the code of column j * 8 + i. Columns past the end have code 7, whose value is 0.
//   uint2 ... uint8  codes in steps of 64 columns, then one float16 scale a group, then one uint8 zero a group:
//                    w = (code - zero) * scale.  A block is a multiple of 16, or at least `columns`: one group.
//                    uint8   64 bytes a step, in column order
//                    uint4   32 bytes: byte l has column l in its low nibble and 16 + l in its high one, for l < 16;
//                            byte 16 + l has 32 + l and 48 + l
//                    uint2   16 bytes: byte l has columns l, 16 + l, 32 + l, 48 + l from its lowest bits on
//                    uint3   as uint2, for the low two bits, then 8 bytes: bit c % 8 of byte c / 8 is column c's high bit
//   fp8              `columns` codes, E4M3 without infinities (Micikevicius et al., FP8 Formats for Deep Learning,
//                    2022), then one float32 scale a group: w = value(code) * scale. Blocks as of uint4.
//   mxfp4            codes in steps as uint4's, then one E8M0 byte a block of 32: w = kFloat4[code] * 2^(byte - 127)
//                    (OCP Microscaling Formats 1.0; byte 255 is NaN)
//   nf4              codes in steps as uint4's, then one float32 scale a block of 64: w = kNormalFloat4[code] * scale
//   q8_0 ... q6_k    ggml's blocks as in a GGUF file, of 32 (q8_0 to q5_1) or 256 columns; columns are whole blocks
//   bf16_window      bfloat16 exactly. `block` is the capacity of a row's escapes, at most 65535. A row is `block` bytes
//                    of escapes, 3 bytes a window of 512 columns (the last may be short): its least exponent, and as a
//                    uint16 where its escapes begin; then for each window its weights in steps of 64, the last one padded
//                    with zeros: 64 bytes a step, then 24 bytes a step. Within a step place 16 * l + i has column
//                    8 * l + i, place 16 * l + 8 + i column 32 + 8 * l + i, for l < 4, i < 8. Of place p, byte p is
//                    mantissa * 2 + sign, and bits 3 * p ... 3 * p + 2 of the 24 bytes, lowest first, are a code: 0 to 6,
//                    exponent - least exponent; 7, the exponent is the window's next escape, in order of places.
//                    An escape beyond the capacity is what follows in the row: no bytes lead a reader out of it.
//
// Codes of columns past the end are 0 where nothing else is said.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace layerstream {

enum class Format : uint8_t {
  kF32, kF16, kBF16, kQ8, kQ4,
  kU2, kU3, kU4, kU8, kFp8, kMxfp4, kNf4,
  kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ2K, kQ3K, kQ4K, kQ5K, kQ6K,
  kBF16Window,
  kCount
};

constexpr size_t kFormatCount = static_cast<size_t>(Format::kCount);
constexpr uint32_t kQ4Block = 64;
constexpr uint32_t kWindowColumns = 512;
constexpr uint32_t kWindowHeaderBytes = 3;
constexpr uint32_t kMaxEscapes = 65535;

// Which numbers of columns may share a scale.
enum class Blocks : uint8_t {
  kNone,        // no scales: anything
  kPowerOfTwo,  // a power of two from 32 on; codes are padded to whole blocks
  kMultiple,    // a multiple of 16, or at least `columns`
  kFixed,       // the format's number
  kWhole,       // the format's number, of which `columns` is a multiple
  kEscapes,     // not columns, but a number of bytes: bf16_window's
};

// One row a format. Bytes of a row: codes of `bits` for the columns, padded to a multiple of `padding` (0: of the
// block), and `group_bytes` for each group, wherever they lie.
struct FormatTraits {
  const char* name;  // in manifests and in JavaScript
  uint8_t bits;
  uint8_t padding;
  uint8_t group_bytes;
  Blocks blocks;
  uint16_t block;  // of kFixed and kWhole
};

constexpr FormatTraits kFormatTraits[] = {
    {"f32", 32, 1, 0, Blocks::kNone, 0},     {"f16", 16, 1, 0, Blocks::kNone, 0},
    {"bf16", 16, 1, 0, Blocks::kNone, 0},    {"8bit", 8, 0, 2, Blocks::kPowerOfTwo, 0},
    {"4bit", 4, 64, 2, Blocks::kFixed, kQ4Block},
    {"uint2", 2, 64, 3, Blocks::kMultiple, 0}, {"uint3", 3, 64, 3, Blocks::kMultiple, 0},
    {"uint4", 4, 64, 3, Blocks::kMultiple, 0}, {"uint8", 8, 64, 3, Blocks::kMultiple, 0},
    {"fp8", 8, 1, 4, Blocks::kMultiple, 0},
    {"mxfp4", 4, 64, 1, Blocks::kFixed, 32}, {"nf4", 4, 64, 4, Blocks::kFixed, 64},
    {"q8_0", 8, 1, 2, Blocks::kWhole, 32},   {"q4_0", 4, 1, 2, Blocks::kWhole, 32},
    {"q4_1", 4, 1, 4, Blocks::kWhole, 32},   {"q5_0", 5, 1, 2, Blocks::kWhole, 32},
    {"q5_1", 5, 1, 4, Blocks::kWhole, 32},   {"q2_k", 2, 1, 20, Blocks::kWhole, 256},
    {"q3_k", 3, 1, 14, Blocks::kWhole, 256}, {"q4_k", 4, 1, 16, Blocks::kWhole, 256},
    {"q5_k", 5, 1, 16, Blocks::kWhole, 256}, {"q6_k", 6, 1, 18, Blocks::kWhole, 256},
    {"bf16_window", 11, 64, 0, Blocks::kEscapes, 0},
};
static_assert(sizeof kFormatTraits / sizeof *kFormatTraits == kFormatCount);

constexpr const FormatTraits& traits_of(Format format) { return kFormatTraits[static_cast<size_t>(format)]; }

constexpr std::optional<Format> format_named(std::string_view name) {
  for (size_t i = 0; i < kFormatCount; ++i) {
    if (name == kFormatTraits[i].name) return static_cast<Format>(i);
  }
  return std::nullopt;
}

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

// E2M1 (OCP Microscaling Formats 1.0).
constexpr float kFloat4[16] = {
    0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f,
};

// Whether a matrix of `columns` columns, at least one, can have blocks of `block` columns. row_bytes and the kernels
// rely on it.
constexpr bool block_fits(Format format, uint32_t columns, uint32_t block) {
  switch (traits_of(format).blocks) {
    case Blocks::kNone:
      return true;
    case Blocks::kPowerOfTwo:
      return block >= 32 && std::has_single_bit(block);
    case Blocks::kMultiple:
      return block > 0 && (block % 16 == 0 || block >= columns);
    case Blocks::kFixed:
      return block == traits_of(format).block;
    case Blocks::kWhole:
      return block == traits_of(format).block && columns % block == 0;
    case Blocks::kEscapes:
      return block > 0 && block <= kMaxEscapes && block <= columns;
  }
  return false;
}

// Bytes of one row; `block` is ignored by formats without scales.
constexpr size_t row_bytes(Format format, uint32_t columns, uint32_t block) {
  const FormatTraits& traits = traits_of(format);
  const size_t padding = traits.padding == 0 ? block : traits.padding;
  const size_t codes = (columns + padding - 1) / padding * padding * traits.bits / 8;
  if (traits.blocks == Blocks::kEscapes) {
    return block + (columns + kWindowColumns - 1) / kWindowColumns * size_t{kWindowHeaderBytes} + codes;
  }
  const size_t groups = traits.group_bytes == 0 ? 0 : (size_t{columns} + block - 1) / block;
  return codes + groups * traits.group_bytes;
}

// Elements of an unquantized format (f32, f16, bf16) to float32: for vectors, where speed does not matter.
void to_float32(Format format, const uint8_t* source, size_t count, float* output);

}  // namespace layerstream
