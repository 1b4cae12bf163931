// How rows are multiplied and weights decoded, in AVX-512; what each operation means is said in native/cpu/generic.
#pragma once

#include "../../backend/format.h"
#include "../float8.h"
#include "../matmul_blocking.h"
#include "simd.h"

namespace layerstream::cpu::avx512 {
namespace {

constexpr uint32_t kVectorRows = 8;
constexpr uint32_t kQuantizedRows = 4;
constexpr uint32_t kPanelRows = 8;
constexpr uint32_t kTileTokens = 3;
constexpr uint32_t kSumRows = 4;

inline void prefetch(const uint8_t* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1); }

inline void keep_in_register(Floats& value) {
#if defined(__GNUC__)
  __asm__("" : "+v"(value.v));
#endif
}

// Four sums at once, by the additions of sum(): lanes 8 apart, then 4, 2 and 1.
inline void add_sums(const Floats* values, float* sums) {
  const auto halves = [&](int i) {
    const __m512 a = values[i].v, b = values[i + 1].v;
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  };
  const __m512 first = halves(0), second = halves(2);
  const __m512 even = _mm512_shuffle_f32x4(first, second, 0x88), odd = _mm512_shuffle_f32x4(first, second, 0xdd);
  const __m512 quarters = _mm512_add_ps(even, odd);
  const __m512 pairs = _mm512_add_ps(quarters, _mm512_permute_ps(quarters, 0x4e));
  const __m512 wholes = _mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  const __m128 total = _mm512_castps512_ps128(_mm512_permutexvar_ps(order, wholes));
  _mm_storeu_ps(sums, _mm_add_ps(_mm_loadu_ps(sums), total));
}

// Lanes 0-7 take nibble 2v and lanes 8-15 nibble 2v + 1 of the same words: 16 columns in order. The permutation looks
// at the low four bits of an index only. The words come twice by two loads, as a broadcast would cost a shuffle.
inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  const __m512i once = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const void* const before = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(codes) - 32);
  const __m512i words = _mm512_mask_loadu_epi32(once, 0xff00, before);
  const __m512i first_shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
  const __m512i shift = _mm512_add_epi32(first_shift, _mm512_set1_epi32(static_cast<int>(8 * v)));
  const __m512 table = _mm512_mul_ps(_mm512_loadu_ps(kNormalFloat4), _mm512_set1_ps(scale));
  return {_mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), table)};
}

// What generic/step_codec.h asks for.

constexpr bool kFastLookUp = true;
constexpr bool kInlineDecoding = true;

inline __m128i load_128(const uint8_t* source) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(source)); }

inline Integers load_bytes(const uint8_t* source) { return {_mm512_cvtepu8_epi32(load_128(source))}; }
inline Integers from_bytes(uint64_t low, uint64_t high) {
  return {_mm512_cvtepu8_epi32(_mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low)))};
}
template <int kRight>
inline Integers shift(Integers value) {
  if constexpr (kRight > 0) return {_mm512_srli_epi32(value.v, kRight)};
  if constexpr (kRight < 0) return {_mm512_slli_epi32(value.v, -kRight)};
  return value;
}
inline Integers operator&(Integers value, int32_t mask) {
  return {_mm512_and_si512(value.v, _mm512_set1_epi32(mask))};
}
inline Integers operator|(Integers a, Integers b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Integers or_where(Integers value, uint32_t lanes, int32_t bits) {
  return {_mm512_mask_or_epi32(value.v, static_cast<__mmask16>(lanes), value.v, _mm512_set1_epi32(bits))};
}
inline Floats to_floats(Integers value) { return {_mm512_cvtepi32_ps(value.v)}; }
inline Floats bits_to_floats(Integers value) { return {_mm512_castsi512_ps(value.v)}; }
inline Floats look_up(Floats table, Integers index) { return {_mm512_permutexvar_ps(index.v, table.v)}; }
inline Floats broadcast_half(const uint8_t* source) {
  int16_t half;
  std::memcpy(&half, source, sizeof half);
  return {_mm512_broadcastss_ps(_mm_cvtph_ps(_mm_set1_epi16(half)))};
}

struct Bytes {
  __m512i v;
};

inline Bytes load_64(const uint8_t* source) { return {_mm512_loadu_si512(source)}; }
inline Bytes load_twice(const uint8_t* source) {
  return {_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)))};
}

// Orders of bytes for permutations and shifts.
struct alignas(64) ByteOrder {
  uint8_t bytes[64];
};

// Where the bits of each shifted byte begin within their quadword.
constexpr ByteOrder make_shifts(int first, int second) {
  ByteOrder order = {};
  for (int i = 0; i < 64; i++) order.bytes[i] = static_cast<uint8_t>((8 * (i % 8) + (i < 32 ? first : second)) & 63);
  return order;
}
template <int kFirst, int kSecond>
constexpr ByteOrder kShifts = make_shifts(kFirst, kSecond);

template <int kFirst, int kSecond>
inline Bytes shift_bytes(Bytes value) {
  if constexpr (kFirst == 0 && kSecond == 0) return value;
  return {_mm512_multishift_epi64_epi8(_mm512_load_si512(kShifts<kFirst, kSecond>.bytes), value.v)};
}
inline Bytes merge(Bytes a, uint8_t mask_a, Bytes b, uint8_t mask_b) {
  const __m512i first = _mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(mask_a)));
  // first | (b & mask_b)
  return {_mm512_ternarylogic_epi32(first, b.v, _mm512_set1_epi8(static_cast<char>(mask_b)), 0xf8)};
}

// Bytes 16 * v ... in the lowest bytes of lanes.
constexpr ByteOrder make_widening(int v) {
  ByteOrder order = {};
  for (int i = 0; i < 16; i++) order.bytes[4 * i] = static_cast<uint8_t>(16 * v + i);
  return order;
}
template <int v>
constexpr ByteOrder kWidening = make_widening(v);

template <uint32_t v>
inline Floats to_floats(Bytes value) {
  constexpr __mmask64 kLowestBytes = 0x1111111111111111;
  const __m512i order = _mm512_load_si512(kWidening<static_cast<int>(v)>.bytes);
  return {_mm512_cvtepi32_ps(_mm512_maskz_permutexvar_epi8(kLowestBytes, order, value.v))};
}

// The two bytes of kFloat8Magnitudes apart.
struct alignas(64) Float8Tables {
  uint8_t low[128], high[128];
};

constexpr Float8Tables make_float8_tables() {
  Float8Tables tables = {};
  for (int code = 0; code < 128; code++) {
    tables.low[code] = static_cast<uint8_t>(kFloat8Magnitudes.of[code] & 255);
    tables.high[code] = static_cast<uint8_t>(kFloat8Magnitudes.of[code] >> 8);
  }
  return tables;
}

constexpr Float8Tables kFloat8Tables = make_float8_tables();

// For weight i of vector v: byte 2 from byte 16 * v + i of the low bytes, byte 3 from that of the high ones.
struct alignas(64) Float8Order {
  uint8_t bytes[4][64];
};

constexpr Float8Order make_float8_order() {
  Float8Order order = {};
  for (int i = 0; i < 64; i++) {
    order.bytes[i / 16][4 * (i % 16) + 2] = static_cast<uint8_t>(i);
    order.bytes[i / 16][4 * (i % 16) + 3] = static_cast<uint8_t>(64 + i);
  }
  return order;
}

constexpr Float8Order kFloat8Order = make_float8_order();

// Permutations look at the low seven bits of an index.
inline void decode_float8(const uint8_t* codes, Floats* weights) {
  const __m512i code = _mm512_loadu_si512(codes);
  const auto look_up_bytes = [&](const uint8_t* table) {
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), code, _mm512_load_si512(table + 64));
  };
  const __m512i low = look_up_bytes(kFloat8Tables.low);
  // high | (code & 0x80)
  const __m512i high =
      _mm512_ternarylogic_epi32(look_up_bytes(kFloat8Tables.high), code, _mm512_set1_epi8(-128), 0xf8);
  constexpr __mmask64 kUpperBytes = 0xcccccccccccccccc;
  for (int v = 0; v < 4; v++) {
    const __m512i order = _mm512_load_si512(kFloat8Order.bytes[v]);
    weights[v].v = _mm512_castsi512_ps(_mm512_maskz_permutex2var_epi8(kUpperBytes, low, order, high));
  }
}

}  // namespace
}  // namespace layerstream::cpu::avx512
