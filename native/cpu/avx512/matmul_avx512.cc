#if defined(__x86_64__) || defined(_M_X64)

#include "simd.h"

namespace layerstream::cpu::avx512 {
namespace {

constexpr uint32_t kVectorRows = 4;
constexpr uint32_t kPanelRows = 8;
constexpr uint32_t kTileTokens = 3;

inline void prefetch(const uint8_t* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0); }

inline Floats load_int8(const uint8_t* source) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source))))};
}

// Lanes 0-7 take nibble 2v and lanes 8-15 nibble 2v + 1 of the same words: 16 columns in order. The permutation looks
// at the low four bits of an index only.
inline void levels(const uint8_t* codes, float scale, Floats* output) {
  const __m512i words = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const __m512 table = _mm512_mul_ps(_mm512_loadu_ps(kNormalFloat4), _mm512_set1_ps(scale));
  const __m512i first_shift = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
  for (int v = 0; v < 4; ++v) {
    const __m512i shift = _mm512_add_epi32(first_shift, _mm512_set1_epi32(8 * v));
    output[v].v = _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), table);
  }
}

}  // namespace
}  // namespace layerstream::cpu::avx512

#include "../generic/matmul.h"

#endif
