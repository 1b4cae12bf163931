#include "simd.h"

#include "../matmul_blocking.h"

namespace layerstream::cpu::scalar {
namespace {

constexpr uint32_t kVectorRows = 1;
constexpr uint32_t kPanelRows = 1;
constexpr uint32_t kTileTokens = 1;

inline void prefetch(const uint8_t*) {}

inline Floats load_int8(const uint8_t* source) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(source[i])); });
}

inline void levels(const uint8_t* codes, float scale, Floats* output) {
  uint32_t words[8];
  std::memcpy(words, codes, sizeof words);
  for (int v = 0; v < 4; ++v) {
    output[v] = each([&](int i) { return kNormalFloat4[words[i % 8] >> (8 * v + i / 8 * 4) & 15] * scale; });
  }
}

}  // namespace
}  // namespace layerstream::cpu::scalar

#include "../generic/matmul.h"

namespace layerstream::cpu {

size_t matmul_scratch_floats(uint32_t, uint32_t tokens) {
  if (tokens <= 1) return 0;
  const size_t token_block = tokens < kMatmulTokenBlock ? tokens : kMatmulTokenBlock;
  return kMatmulAlignment / sizeof(float) + kMatmulMaximumPanel * kMatmulChunk +
         token_block * (kMatmulChunk + kMatmulRowBlock);
}

}  // namespace layerstream::cpu
