#if defined(__x86_64__) || defined(_M_X64)

#include "simd.h"

#include "../../backend/format.h"

namespace layerstream::cpu::avx2 {
namespace {

constexpr uint32_t kVectorRows = 4;
constexpr uint32_t kQuantizedRows = 2;
constexpr uint32_t kPanelRows = 2;
constexpr uint32_t kTileTokens = 3;
constexpr uint32_t kSumRows = 1;

inline void prefetch(const uint8_t* address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0); }

inline void keep_in_register(Floats& value) {
#if defined(__GNUC__)
  __asm__("" : "+x"(value.low), "+x"(value.high));
#endif
}

inline void add_sums(const Floats* values, float* sums) { *sums += sum(*values); }

inline __m256 load_8_int8(const uint8_t* source) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(source))));
}
inline Floats load_int8(const uint8_t* source) { return {load_8_int8(source), load_8_int8(source + 8)}; }

// Permutations look at the low three bits of an index; the fourth, moved to the sign, picks between two of them.
inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256 low_table = _mm256_mul_ps(_mm256_loadu_ps(kNormalFloat4), _mm256_set1_ps(scale));
  const __m256 high_table = _mm256_mul_ps(_mm256_loadu_ps(kNormalFloat4 + 8), _mm256_set1_ps(scale));
  const auto look_up = [&](int shift) {
    const __m256i index = _mm256_srli_epi32(words, shift);
    const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28 - shift));
    const __m256 low = _mm256_permutevar8x32_ps(low_table, index);
    return _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(high_table, index), is_high);
  };
  const int shift = static_cast<int>(8 * v);
  return {look_up(shift), look_up(shift + 4)};
}

}  // namespace
}  // namespace layerstream::cpu::avx2

#include "../generic/matmul.h"

#endif
