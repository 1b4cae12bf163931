// The end of a product: from sums of columns to MatmulArgs' output. Included after LAYERSTREAM_ISA is defined.
#pragma once

#include "../kernels.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

inline void write_sums(const MatmulArgs& args, uint32_t token, uint32_t row, const float* sums, uint32_t count) {
  float* output = args.output + token * args.output_stride + row;
  for (uint32_t i = 0; i < count; ++i) {
    float value = sums[i];
    if (args.row_scale != nullptr) value *= args.row_scale[row + i];
    if (args.bias != nullptr) value += args.bias[row + i];
    value *= args.scale;
    output[i] = args.accumulate ? output[i] + value : value;
  }
}

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
