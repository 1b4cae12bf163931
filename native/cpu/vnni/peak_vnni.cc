#if defined(__x86_64__) || defined(_M_X64)

#include "../avx512/simd.h"
#include "products.h"

namespace layerstream::cpu::vnni {

uint64_t peak_bf16(uint32_t iterations) {
  constexpr int kSums = 12;
  volatile float sink = 1.0f;  // unknown to the compiler
  const auto factors = (__m512bh)_mm512_set1_ps(sink);
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  for (uint32_t iteration = 0; iteration < iterations; ++iteration) {
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factors, factors);
  }
  for (int i = 0; i < kSums; ++i) sink = _mm512_reduce_add_ps(sums[i]);
  return uint64_t{2} * 32 * kSums * iterations;
}

}  // namespace layerstream::cpu::vnni

#endif
