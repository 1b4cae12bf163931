#include "simd.h"

#include "../../backend/format.h"

#include "../matmul_blocking.h"

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

inline Floats load_int8(const uint8_t* source) {
  return each([&](int i) { return static_cast<float>(static_cast<int8_t>(source[i])); });
}

inline Floats levels(const uint8_t* codes, float scale, uint32_t v) {
  return each([&](int i) {
    uint32_t word;
    std::memcpy(&word, codes + 4 * (i % 8), sizeof word);
    return kNormalFloat4[word >> (8 * v + 4 * (static_cast<uint32_t>(i) / 8)) & 15] * scale;
  });
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
