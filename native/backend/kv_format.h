// How keys and values lie in the KV cache.
//
// A page holds `positions` consecutive positions of a sequence in one layer: a block of keys for each KV head, then a
// block of values for each. A block is `positions` vectors of `dim` elements, one after the other.
//
//   f32    float32
//   bf16   bfloat16, to nearest, ties to even
//   8bit   int8 codes; after the codes of the block, at a multiple of 4 bytes, one float32 scale a vector:
//          value = code * scale, scale = largest magnitude of the vector / 127, code = value / scale to nearest, ties to
//          even. A largest magnitude below 2^-100 counts as 0; a vector with NaN or infinities has a NaN for its scale.
#pragma once

#include <cstddef>
#include <cstdint>

namespace layerstream {

enum class KvFormat : uint8_t { kF32, kBF16, kQ8, kCount };

constexpr size_t kKvFormatCount = static_cast<size_t>(KvFormat::kCount);
constexpr const char* kKvFormatNames[kKvFormatCount] = {"f32", "bf16", "8bit"};

constexpr size_t kv_element_bytes(KvFormat format) {
  return format == KvFormat::kF32 ? 4 : format == KvFormat::kBF16 ? 2 : 1;
}

// Where in a block the scales begin.
constexpr size_t kv_scales_offset(uint32_t positions, uint32_t dim) { return (size_t{positions} * dim + 3) / 4 * 4; }

constexpr size_t kv_block_bytes(KvFormat format, uint32_t positions, uint32_t dim) {
  if (format == KvFormat::kQ8) return dim == 0 ? 0 : kv_scales_offset(positions, dim) + positions * sizeof(float);
  return size_t{positions} * dim * kv_element_bytes(format);
}

}  // namespace layerstream
