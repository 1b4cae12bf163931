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
  const uint64_t end = std::min<uint64_t>(op.end_position(), op.part_end);
  const uint64_t first = std::min<uint64_t>(end, std::max(op.begin_position(), op.part_begin));
  // Positions that each token sees, over all tokens.
  uint64_t pairs = 0;
  for (uint64_t position = op.first_position; position < op.end_position(); ++position) {
    const uint64_t seen_from = op.window > 0 && position + 1 > op.window ? position + 1 - op.window : 0;
    const uint64_t seen_to = std::min(position + 1, end);
    pairs += seen_to - std::min(seen_to, std::max(seen_from, first));
  }
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
