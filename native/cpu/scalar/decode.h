// How rows are multiplied and weights decoded, in portable C++.
#pragma once

#include "../../backend/format.h"
#include "../float8.h"
#include "../matmul_blocking.h"
#include "simd.h"

namespace layerstream::cpu::scalar {
namespace {

constexpr uint32_t kVectorRows = 1;
constexpr uint32_t kQuantizedRows = 1;
constexpr uint32_t kPanelRows = 1;
constexpr uint32_t kTileTokens = 1;
constexpr uint32_t kSumRows = 1;

inline void prefetch(const uint8_t*) {}

inline void keep_in_register(Floats&) {}

inline void add_sums(const Floats* values, float* sums) { *sums += sum(*values); }

inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  return each([&](int i) {
    uint32_t word;
    std::memcpy(&word, codes + 4 * (i % 8), sizeof word);
    return kNormalFloat4[word >> (8 * v + 4 * (static_cast<uint32_t>(i) / 8)) & 15] * scale;
  });
}

// What generic/step_codec.h asks for.

constexpr bool kFastLookUp = false;
constexpr bool kInlineDecoding = false;

inline Integers each_integer(auto function) {
  Integers result;
  for (int i = 0; i < 16; i++) result.lane[i] = static_cast<int32_t>(function(i));
  return result;
}

inline Integers load_bytes(const uint8_t* source) {
  return each_integer([&](int i) { return source[i]; });
}
inline Integers from_bytes(uint64_t low, uint64_t high) {
  return each_integer([&](int i) { return (i < 8 ? low : high) >> (8 * (i % 8)) & 255; });
}
template <int kRight>
inline Integers shift(Integers value) {
  return each_integer([&](int i) {
    const uint32_t lane = static_cast<uint32_t>(value.lane[i]);
    if constexpr (kRight < 0) return lane << -kRight;
    return lane >> (kRight < 0 ? 0 : kRight);
  });
}
inline Integers operator&(Integers value, int32_t mask) {
  return each_integer([&](int i) { return value.lane[i] & mask; });
}
inline Integers operator|(Integers a, Integers b) {
  return each_integer([&](int i) { return a.lane[i] | b.lane[i]; });
}
inline Integers or_where(Integers value, uint32_t lanes, int32_t bits) {
  return each_integer([&](int i) { return (lanes >> i & 1) != 0 ? value.lane[i] | bits : value.lane[i]; });
}
inline Floats to_floats(Integers value) {
  return each([&](int i) { return static_cast<float>(value.lane[i]); });
}
inline Floats bits_to_floats(Integers value) {
  return each([&](int i) { return float_from_bits(static_cast<uint32_t>(value.lane[i])); });
}
inline Floats look_up(Floats table, Integers index) {
  return each([&](int i) { return table.lane[index.lane[i] & 15]; });
}
inline Floats broadcast_half(const uint8_t* source) {
  uint16_t half;
  std::memcpy(&half, source, sizeof half);
  return broadcast(float_from_half(half));
}

struct Bytes {
  uint8_t byte[64];
};

inline Bytes load_64(const uint8_t* source) {
  Bytes result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
inline Bytes load_twice(const uint8_t* source) {
  Bytes result;
  std::memcpy(result.byte, source, 32);
  std::memcpy(result.byte + 32, source, 32);
  return result;
}
template <int kFirst, int kSecond>
inline Bytes shift_bytes(Bytes value) {
  const auto shifted = [](uint8_t byte, int left, int right) { return static_cast<uint8_t>(byte << left >> right); };
  for (int i = 0; i < 32; i++) value.byte[i] = shifted(value.byte[i], kFirst < 0 ? -kFirst : 0, kFirst < 0 ? 0 : kFirst);
  for (int i = 32; i < 64; i++) value.byte[i] = shifted(value.byte[i], kSecond < 0 ? -kSecond : 0, kSecond < 0 ? 0 : kSecond);
  return value;
}
inline Bytes merge(Bytes a, uint8_t mask_a, Bytes b, uint8_t mask_b) {
  for (int i = 0; i < 64; i++) a.byte[i] = static_cast<uint8_t>((a.byte[i] & mask_a) | (b.byte[i] & mask_b));
  return a;
}
template <uint32_t v>
inline Floats to_floats(const Bytes& value) {
  return each([&](int i) { return static_cast<float>(value.byte[16 * v + static_cast<uint32_t>(i)]); });
}

inline void decode_float8(const uint8_t* codes, Floats* weights) {
  for (int v = 0; v < 4; v++) {
    weights[v] = each([&](int i) {
      const uint32_t code = codes[16 * v + i];
      return float_from_bits((uint32_t{kFloat8Magnitudes.of[code & 127]} | (code & 128) << 8) << 16);
    });
  }
}

}  // namespace
}  // namespace layerstream::cpu::scalar
