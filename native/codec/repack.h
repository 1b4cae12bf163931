// Weights of checkpoints that come quantized, as codes with scales, to rows of the formats in backend/format.h.
// Nothing here is rounded: what a format can't hold exactly is refused.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../backend/format.h"

namespace layerstream {

// How a checkpoint packs the codes of a matrix.
enum class CodePacking : uint8_t {
  kStream,       // rows of `row_bytes`, each a little-endian stream of `bits`-wide codes
  kHighNibbles,  // the same with 4 bits, but the high nibble of a byte comes first (bitsandbytes)
  kInterleaved,  // little-endian words [rows / 8][columns]: word (i, c) has column c of rows 8i ... 8i + 7 at the bits
                 // 4 * {0, 4, 1, 5, 2, 6, 3, 7} (AWQ)
};

struct PackedCodes {
  const uint8_t* data;
  CodePacking packing;
  uint32_t bits;  // 2, 3, 4 or 8
  uint32_t rows;
  uint32_t columns;
  size_t row_bytes;  // of kStream and kHighNibbles
  uint32_t first;    // codes before column 0 in every row of these two
};

// Bytes that `codes.data` must have.
size_t packed_bytes(const PackedCodes& codes);

// output: one byte a code, [rows, columns].
void unpack_codes(const PackedCodes& codes, uint8_t* output);

// A matrix of one byte a code. Columns c have the scale and zero c / block, or group_of[c / block] if that is given.
struct ScaledCodes {
  const uint8_t* codes;      // [rows, columns]
  uint32_t rows;
  uint32_t columns;
  uint32_t block;
  const float* scales;       // [rows, groups]
  const uint8_t* zeros;      // [rows, groups], or null: no zeros
  uint32_t groups;
  const uint32_t* group_of;  // ceil(columns / block) numbers below `groups`, or null
};

// Rows of uint2, uint3, uint4, uint8 (which need zeros), fp8, mxfp4 or nf4, with blocks of `codes.block` columns.
// Column c of the output is column order[c] of the codes, unless order is null; blocks are those of the output.
// False if a scale is not exact in float16 (uint2 ... uint8) or not a power of two from 2^-127 to 2^127 (mxfp4).
bool pack_rows(const ScaledCodes& codes, const uint32_t* order, Format format, uint8_t* output);

// output: [rows, columns] of (levels ? levels[code] : code - zero) * scale; levels holds 256 numbers.
void expand_rows(const ScaledCodes& codes, const float* levels, float* output);

}  // namespace layerstream
