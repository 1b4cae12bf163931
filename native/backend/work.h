// What an op costs: the bytes that it must read and the arithmetic that it must do, whatever the device.
#pragma once

#include "../platform/trace.h"
#include "ops.h"

namespace layerstream {

struct OpWork {
  Activity activity;
  Work work{};
};

// Weights of products and of embeddings, keys and values of attention. Operations of products and attention alone: the
// other ops are bound by memory.
OpWork work_of(const Op& op);

}  // namespace layerstream
