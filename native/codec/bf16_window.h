// Rows of bfloat16 as rows of bf16_window (backend/format.h), bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

struct WindowSource {
  const uint8_t* weights;  // [rows, columns] bfloat16, contiguous, at any address
  uint32_t rows, columns;
};

// The most escapes that a row has, which is the least capacity of its matrix.
size_t most_escapes(const WindowSource& source);

// rows * row_bytes(kBF16Window, columns, block) bytes to `output`. False, with the output unfinished, if a row has more
// than `block` escapes.
bool encode_windows(const WindowSource& source, uint32_t block, uint8_t* output);

// The upper halves of `count` float32. False, with the output unfinished, if a lower half is not zero.
bool narrow_to_bfloat16(const uint8_t* floats, size_t count, uint8_t* output);

}  // namespace layerstream
