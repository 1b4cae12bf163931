// Shapes that a weight format can have.
#pragma once

#include "reference_weights.h"

namespace layerstream::reference {

struct FormatShape {
  uint32_t columns, block;
};

// At least `columns` columns, and a block: another one for another `index`.
inline FormatShape fit_format(Format format, uint32_t columns, uint32_t index, RandomRows& random) {
  const FormatTraits& traits = traits_of(format);
  switch (traits.blocks) {
    case Blocks::kNone:
      return {columns, 0};
    case Blocks::kPowerOfTwo:
      return {columns, 32u << random.uniform(0, 6)};
    case Blocks::kFixed:
      return {columns, traits.block};
    case Blocks::kMultiple: {
      const uint32_t blocks[] = {16, 32, 48, 64, 80, 128, 192, 512, 528, 1024, columns, columns + 3};
      return {columns, blocks[index % 12]};
    }
    case Blocks::kWhole:
      return {(columns + traits.block - 1) / traits.block * traits.block, traits.block};
    case Blocks::kEscapes:
      return {columns, random.uniform(1, std::min(columns, 1 + columns / (1 + index % 12)))};
  }
  return {columns, 0};
}

}  // namespace layerstream::reference
