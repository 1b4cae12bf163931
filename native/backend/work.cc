#include "work.h"

#include <algorithm>

namespace layerstream {

namespace {

OpWork work(const EmbedOp& op) { return {Activity::kEmbed, {op.row.size, 0}}; }
OpWork work(const NormOp&) { return {Activity::kNorm}; }
OpWork work(const RopeOp&) { return {Activity::kRope}; }
OpWork work(const ActivationOp&) { return {Activity::kActivation}; }
OpWork work(const ScaleTokensOp&) { return {Activity::kScaleTokens}; }
OpWork work(const SoftCapOp&) { return {Activity::kSoftCap}; }
OpWork work(const GatherRowsOp&) { return {Activity::kGatherRows}; }
OpWork work(const ScatterAddOp&) { return {Activity::kScatterAdd}; }
OpWork work(const PermuteOp&) { return {Activity::kPermute}; }

OpWork work(const MatmulOp& op) {
  const auto activity = static_cast<Activity>(static_cast<uint16_t>(Activity::kMatmul) + static_cast<uint16_t>(op.format));
  return {activity, {uint64_t{op.rows} * op.row_bytes, uint64_t{2} * op.rows * op.columns * op.tokens}};
}

OpWork work(const AttentionOp& op) {
  const uint64_t end = uint64_t{op.first_position} + op.tokens;
  const uint64_t window = op.window > 0 ? op.window : end;
  // Positions that each token sees, over all tokens.
  uint64_t pairs = 0;
  for (uint64_t position = op.first_position; position < end; ++position) pairs += std::min(position + 1, window);
  const uint64_t first = op.first_position + uint64_t{1} > window ? op.first_position + 1 - window : 0;
  const auto block = [&](uint32_t dim) { return kv_block_bytes(op.kv_format, static_cast<uint32_t>(end - first), dim); };
  const uint64_t cached = block(op.head_dim) + (op.values_in_keys ? 0 : block(op.value_dim));
  return {Activity::kAttention,
          {op.kv_heads * cached, 2 * pairs * op.heads * (uint64_t{op.head_dim} + op.value_dim)}};
}

}  // namespace

OpWork work_of(const Op& op) {
  return std::visit([](const auto& concrete) { return work(concrete); }, op);
}

}  // namespace layerstream
