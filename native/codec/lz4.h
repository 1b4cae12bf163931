// Raw LZ4 blocks (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md).
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

// Decodes a block into exactly `output_bytes` bytes. False if `data` is not such a block; whatever the bytes are, nothing
// outside of `data` is read and nothing outside of `output` is written. The two do not overlap.
bool lz4_decode(const uint8_t* data, size_t bytes, uint8_t* output, size_t output_bytes);

}  // namespace layerstream
