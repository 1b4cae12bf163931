// Block sizes of the matrix product. They fix its scratch and, by kMatmulChunk, the order of its sums.
#pragma once

#include <cstdint>

namespace layerstream::cpu {

constexpr uint32_t kMatmulLanes = 16;
constexpr uint32_t kMatmulStep = 64;         // columns decoded at once: a q4 block
constexpr uint32_t kMatmulChunk = 512;       // columns summed before lanes are folded
constexpr uint32_t kMatmulTokenBlock = 96;   // tokens packed at once
constexpr uint32_t kMatmulRowBlock = 256;    // rows whose running sums are kept
constexpr uint32_t kMatmulMaximumPanel = 8;  // rows decoded at once
constexpr uint32_t kMatmulAlignment = 64;    // bytes

}  // namespace layerstream::cpu
