// The memory that an op names, null buffers included.
#pragma once

#include <vector>

#include "../../native/backend/ops.h"

namespace layerstream::test {

inline std::vector<Range> ranges(const EmbedOp& op) { return {op.row, op.output}; }
inline std::vector<Range> ranges(const NormOp& op) { return {op.input, op.output, op.weight, op.bias}; }
inline std::vector<Range> ranges(const MatmulOp& op) { return {op.weight, op.input, op.output, op.bias, op.row_scale}; }
inline std::vector<Range> ranges(const RopeOp& op) { return {op.target, op.cosine, op.sine}; }
inline std::vector<Range> ranges(const AttentionOp& op) {
  return {op.query, op.key, op.value, op.output, op.key_cache, op.value_cache, op.pages, op.sinks, op.slopes, op.state};
}
inline std::vector<Range> ranges(const ActivationOp& op) { return {op.gate, op.up}; }
inline std::vector<Range> ranges(const ScaleTokensOp& op) { return {op.target, op.factor}; }
inline std::vector<Range> ranges(const SoftCapOp& op) { return {op.target}; }
inline std::vector<Range> ranges(const GatherRowsOp& op) { return {op.input, op.output, op.rows}; }
inline std::vector<Range> ranges(const ScatterAddOp& op) { return {op.input, op.output, op.rows, op.weights}; }
inline std::vector<Range> ranges(const PermuteOp& op) { return {op.input, op.output, op.order}; }

inline std::vector<Range> ranges_of(const Op& op) {
  return std::visit([](const auto& concrete) { return ranges(concrete); }, op);
}

}  // namespace layerstream::test
