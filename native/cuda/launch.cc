#include "launch.h"

#include <algorithm>

#include "../platform/memory.h"

namespace layerstream::cuda {

namespace {

// Threads of a block of the kernels that treat floats apart.
constexpr uint32_t kElementThreads = 256;

}  // namespace

template <class Arguments>
void Launcher::launch_elements(const char* name, uint32_t tokens, uint32_t width, const Arguments& arguments) {
  launch(name, {tokens, (width + kElementThreads - 1) / kElementThreads}, kElementThreads, 0, arguments);
}

void Launcher::run(const NormOp& op) {
  NormArguments arguments{};
  arguments.input = pointer<const float>(op.input);
  arguments.output = pointer<float>(op.output);
  arguments.weight = pointer<const float>(op.weight);
  arguments.bias = pointer<const float>(op.bias);
  arguments.groups = op.groups;
  arguments.width = op.width;
  arguments.input_stride = op.input_stride;
  arguments.output_stride = op.output_stride;
  arguments.epsilon = op.epsilon;
  arguments.centered = op.centered;
  arguments.group_weights = op.group_weights;
  arguments.accumulate = op.accumulate;
  // The sums are divided by threads: their number depends on the width alone.
  const auto threads = static_cast<uint32_t>(std::clamp<uint64_t>(align_up(op.width, 128) / 4, 32, 1024));
  launch("normalize", {op.tokens, op.groups}, threads, 0, arguments);
}

void Launcher::run(const RopeOp& op) {
  RopeArguments arguments{};
  arguments.target = pointer<float>(op.target);
  arguments.cosine = pointer<const float>(op.cosine);
  arguments.sine = pointer<const float>(op.sine);
  arguments.stride = op.stride;
  arguments.heads = op.heads;
  arguments.head_dim = op.head_dim;
  arguments.rotary_dim = op.rotary_dim;
  arguments.offset = op.offset;
  arguments.interleaved = op.interleaved;
  launch_elements("rope", op.tokens, op.heads * (op.rotary_dim / 2), arguments);
}

void Launcher::run(const ActivationOp& op) {
  const ActivationArguments arguments = {pointer<float>(op.gate), pointer<const float>(op.up), op.width, op.gate_stride,
                                         op.up_stride,            op.activation,               op.alpha, op.limit};
  launch_elements("activation", op.tokens, op.width, arguments);
}

void Launcher::run(const ScaleTokensOp& op) {
  const ScaleTokensArguments arguments = {pointer<float>(op.target), pointer<const float>(op.factor), op.width, op.target_stride,
                                          op.factor_stride};
  launch_elements("scale_tokens", op.tokens, op.width, arguments);
}

void Launcher::run(const SoftCapOp& op) {
  const SoftCapArguments arguments = {pointer<float>(op.target), op.width, op.stride, op.cap};
  launch_elements("soft_cap", op.tokens, op.width, arguments);
}

void Launcher::run(const GatherRowsOp& op) {
  const IndexedArguments arguments = {pointer<const float>(op.input), pointer<float>(op.output), pointer<const uint32_t>(op.rows),
                                      nullptr, op.width, op.input_stride, op.output_stride};
  launch_elements("gather_rows", op.count, op.width, arguments);
}

void Launcher::run(const ScatterAddOp& op) {
  const IndexedArguments arguments = {pointer<const float>(op.input), pointer<float>(op.output), pointer<const uint32_t>(op.rows),
                                      pointer<const float>(op.weights), op.width, op.input_stride, op.output_stride};
  launch_elements("scatter_add", op.count, op.width, arguments);
}

void Launcher::run(const PermuteOp& op) {
  const IndexedArguments arguments = {pointer<const float>(op.input), pointer<float>(op.output), pointer<const uint32_t>(op.order),
                                      nullptr, op.width, op.input_stride, op.output_stride};
  launch_elements("permute", op.tokens, op.width, arguments);
}

}  // namespace layerstream::cuda
