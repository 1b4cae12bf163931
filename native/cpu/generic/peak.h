// Multiply-adds of float32 that wait for nothing, written once over sixteen lanes. Included by each instruction set's peak file.
#include "../functions.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {

uint64_t peak_f32(uint32_t iterations) {
  constexpr int kSums = kTileRows * kTileVectors;
  volatile float sink = 1.0f;  // unknown to the compiler
  const Floats factor = broadcast(sink);
  Floats sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));
  for (uint32_t iteration = 0; iteration < iterations; ++iteration) {
    for (int i = 0; i < kSums; ++i) sums[i] = multiply_add(sums[i], factor, factor);
  }
  for (int i = 0; i < kSums; ++i) sink = sum(sums[i]);
  return uint64_t{2} * 16 * kSums * iterations;
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
