// CRC-32C (Castagnoli): reflected polynomial 0x82f63b78, initial value and final xor all ones, as in RFC 3720.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

// Checksum of `size` bytes. `previous` is the checksum of the bytes before them, 0 at the start.
uint32_t crc32c(const uint8_t* data, size_t size, uint32_t previous = 0);

// The same by tables, for processors without an instruction for it.
uint32_t crc32c_portable(const uint8_t* data, size_t size, uint32_t previous = 0);

}  // namespace layerstream
