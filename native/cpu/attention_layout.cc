#include "attention_layout.h"

#include "kernels.h"

namespace layerstream::cpu {

size_t attention_scratch_floats(uint32_t head_dim, uint32_t value_dim) {
  using namespace attention_layout;
  const size_t keys = size_t{padded(head_dim)} * kBlockKeys;
  const size_t scores = size_t{kRows} * kBlockKeys;
  const size_t sums = size_t{kRows} * padded(value_dim);
  return 16 + keys + scores + sums;
}

}  // namespace layerstream::cpu
