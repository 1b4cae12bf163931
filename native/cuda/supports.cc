// The table op x format: what the kernels cannot do.
#include "attention_limits.h"
#include "launch.h"

namespace layerstream::cuda {

bool supports(const Limits& limits, const Op& op) {
  const auto* const attention = std::get_if<AttentionOp>(&op);
  if (attention == nullptr) return true;
  if (attention->value_dim > kMostValueDims || attention->kv_heads == 0) return false;
  const AttentionShape shape = attention_shape(attention->heads / attention->kv_heads, attention->value_dim);
  return attention_shared_bytes(shape, attention->head_dim, attention->value_dim) <= limits.shared_bytes;
}

}  // namespace layerstream::cuda
