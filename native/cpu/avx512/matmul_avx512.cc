#if defined(__x86_64__) || defined(_M_X64)

#include "simd.h"

#include "../../backend/format.h"

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

inline Floats load_int8(const uint8_t* source) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))))};
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

}  // namespace
}  // namespace layerstream::cpu::avx512

#include "../generic/matmul.h"

#endif
