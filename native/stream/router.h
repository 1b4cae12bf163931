// Which experts each token of a pass takes, decided on the host from its router logits.
//
// Scores of a token are the softmax of its logits, or their sigmoids. Experts are chosen by score plus correction. With
// several groups (of experts / group_count neighbours), a group is worth its best choice or the sum of its two best;
// only experts of the `groups_kept` best groups are eligible. Of equal ones the lower index wins. A chosen expert weighs
// its score, without the correction; divided by the sum of the chosen if `normalize`; times `scale`. All of it is float32.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model.h"

namespace layerstream {

class Router {
 public:
  // Sizes for routes of at most `experts` experts and `entries` (tokens times experts of a token).
  void reserve(uint32_t experts, uint64_t entries);

  // `logits`: [tokens, stride], of which the first `experts` columns count. `correction`: [experts] or empty. Fills
  // `rows` and `weights` ([tokens * per_token] each): for each chosen expert in ascending order the tokens that chose
  // it, in ascending order, and their weights. Allocates nothing once reserved.
  void route(const RoutingRule& rule, const float* logits, uint32_t stride, uint32_t tokens,
             std::span<const float> correction, uint32_t* rows, float* weights);

  // Of the last route: experts that some token chose, ascending, and where each one's entries lie.
  std::span<const uint32_t> chosen() const { return chosen_; }
  uint64_t begin(uint32_t expert) const { return begins_[expert]; }
  uint32_t count(uint32_t expert) const { return static_cast<uint32_t>(begins_[expert + 1] - begins_[expert]); }

 private:
  void score(const RoutingRule& rule, const float* logits, std::span<const float> correction);
  void mask_groups(const RoutingRule& rule);
  void choose(const RoutingRule& rule, uint32_t* experts, float* weights);

  std::vector<float> scores_, choices_;       // of one token: [experts]
  std::vector<float> group_scores_;
  std::vector<uint32_t> kept_groups_;
  std::vector<uint32_t> token_experts_;       // [tokens, per_token], best first
  std::vector<float> token_weights_;
  std::vector<uint64_t> begins_, next_;
  std::vector<uint32_t> chosen_;
};

}  // namespace layerstream
