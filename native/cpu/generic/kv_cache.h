// Elements of the KV cache, over sixteen lanes. Included by generic/attention.h.
#include <cstring>

#include "../../platform/half.h"
#include "../functions.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

// Sixteen elements of a cached vector from element `index` on; `scale` is the vector's, where the format has scales.
template <KvFormat kFormat>
inline Floats load_cached(const uint8_t* vector, uint32_t index, float scale) {
  const uint8_t* source = vector + size_t{index} * kv_element_bytes(kFormat);
  if constexpr (kFormat == KvFormat::kF32) return load_f32(source);
  if constexpr (kFormat == KvFormat::kBF16) return load_bf16(source);
  if constexpr (kFormat == KvFormat::kQ8) return load_int8(source) * broadcast(scale);
}

// The first `count` of them, fewer than 16; the others are 0.
template <KvFormat kFormat>
inline Floats load_cached(const uint8_t* vector, uint32_t index, float scale, uint32_t count) {
  if constexpr (kFormat == KvFormat::kF32) return load(reinterpret_cast<const float*>(vector) + index, count);
  uint8_t padded[16 * kv_element_bytes(kFormat)] = {};
  std::memcpy(padded, vector + size_t{index} * kv_element_bytes(kFormat), count * kv_element_bytes(kFormat));
  return load_cached<kFormat>(padded, 0, scale);
}

constexpr int32_t kInfinity = 0x7f800000;
constexpr float kLeastLargest = 0x1p-100f;

inline void encode_bf16(const float* source, uint32_t dim, uint8_t* target) {
  for (uint32_t i = 0; i < dim; i++) {
    const uint32_t bits = float_bits(source[i]);
    const uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    const auto half = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : nearest);
    std::memcpy(target + 2 * i, &half, sizeof half);
  }
}

inline void encode_q8(const float* source, uint32_t dim, uint8_t* target, float* scale) {
  const auto elements = [&](uint32_t i) { return dim - i < 16 ? load(source + i, dim - i) : load(source + i); };
  Integers bits = absolute_bits(broadcast(0.0f));
  for (uint32_t i = 0; i < dim; i += 16) bits = maximum(bits, absolute_bits(elements(i)));
  const int32_t largest_bits = largest(bits);
  const float magnitude = float_from_bits(static_cast<uint32_t>(largest_bits));
  if (largest_bits >= kInfinity || magnitude < kLeastLargest) {
    *scale = largest_bits >= kInfinity ? float_from_bits(0x7fc00000) : 0.0f;
    std::memset(target, 0, dim);
    return;
  }
  *scale = magnitude / 127.0f;
  const Floats divisor = broadcast(*scale);
  for (uint32_t i = 0; i < dim; i += 16) {
    int8_t codes[16];
    store_int8(codes, elements(i) / divisor);
    std::memcpy(target + i, codes, dim - i < 16 ? dim - i : 16);
  }
}

}  // namespace

void encode_kv(KvFormat format, const float* source, uint32_t dim, uint8_t* target, float* scale) {
  switch (format) {
    case KvFormat::kBF16:
      return encode_bf16(source, dim, target);
    case KvFormat::kQ8:
      return encode_q8(source, dim, target, scale);
    default:
      std::memcpy(target, source, dim * sizeof(float));
  }
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
