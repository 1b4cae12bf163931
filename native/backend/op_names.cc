#include "op_names.h"

namespace layerstream {

const char* name_of(const Op& op) {
  static constexpr const char* kNames[] = {"embed",      "norm",     "matmul",      "rope",        "attention", "activation",
                                           "scale tokens", "soft cap", "gather rows", "scatter add", "permute"};
  static_assert(sizeof kNames / sizeof *kNames == std::variant_size_v<Op>);
  return kNames[op.index()];
}

std::string describe(const Op& op) {
  const std::string name = name_of(op);
  const auto with_weights = [&](Format format) { return name + " with " + traits_of(format).name + " weights"; };
  if (const auto* embed = std::get_if<EmbedOp>(&op)) return with_weights(embed->format);
  if (const auto* matmul = std::get_if<MatmulOp>(&op)) return with_weights(matmul->format);
  const auto* attention = std::get_if<AttentionOp>(&op);
  if (attention == nullptr) return name;
  return name + " with keys and values in " + kKvFormatNames[static_cast<size_t>(attention->kv_format)];
}

}  // namespace layerstream
