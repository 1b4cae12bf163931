#include "decode.h"

#include "../generic/matmul.h"

namespace layerstream::cpu {

size_t matmul_scratch_floats(uint32_t, uint32_t tokens) {
  if (tokens <= 1) return 0;
  const size_t token_block = tokens < kMatmulTokenBlock ? tokens : kMatmulTokenBlock;
  return kMatmulAlignment / sizeof(float) + kMatmulMaximumPanel * kMatmulChunk +
         token_block * (kMatmulChunk + kMatmulRowBlock);
}

}  // namespace layerstream::cpu
