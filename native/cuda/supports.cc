#include "launch.h"

namespace layerstream::cuda {

bool supports(const Limits&, const Op& op) { return !std::holds_alternative<AttentionOp>(op); }

}  // namespace layerstream::cuda
