#include "router.h"

#include <algorithm>
#include <cmath>

namespace layerstream {

namespace {

// Indices of the `best.size()` largest values, largest first; of equal ones the lower index first. Values that are not
// numbers are never preferred, so that whatever the logits, the indices are distinct and in range.
void largest(std::span<const float> values, std::span<uint32_t> best) {
  size_t found = 0;
  for (uint32_t index = 0; index < values.size(); ++index) {
    const float value = values[index];
    if (found == best.size() && !(value > values[best[found - 1]])) continue;
    size_t place = found < best.size() ? found++ : found - 1;
    for (; place > 0 && value > values[best[place - 1]]; --place) best[place] = best[place - 1];
    best[place] = index;
  }
}

}  // namespace

void Router::reserve(uint32_t experts, uint64_t entries) {
  for (std::vector<float>* vector : {&scores_, &choices_, &group_scores_}) vector->resize(std::max<size_t>(vector->size(), experts));
  kept_groups_.resize(std::max<size_t>(kept_groups_.size(), experts));
  token_experts_.resize(std::max<size_t>(token_experts_.size(), entries));
  token_weights_.resize(token_experts_.size());
  begins_.resize(std::max<size_t>(begins_.size(), size_t{experts} + 1));
  next_.resize(begins_.size());
  chosen_.reserve(experts);
}

void Router::route(const RoutingRule& rule, const float* logits, uint32_t stride, uint32_t tokens,
                   std::span<const float> correction, uint32_t* rows, float* weights) {
  reserve(rule.experts, uint64_t{tokens} * rule.per_token);
  const uint64_t entries = uint64_t{tokens} * rule.per_token;
  for (uint32_t token = 0; token < tokens; ++token) {
    score(rule, logits + size_t{token} * stride, correction);
    if (rule.group_count > 1) mask_groups(rule);
    choose(rule, token_experts_.data() + size_t{token} * rule.per_token, token_weights_.data() + size_t{token} * rule.per_token);
  }

  std::fill(begins_.begin(), begins_.end(), 0);
  for (uint64_t entry = 0; entry < entries; ++entry) ++begins_[token_experts_[entry] + 1];
  chosen_.clear();
  for (uint32_t expert = 0; expert < rule.experts; ++expert) {
    if (begins_[expert + 1] > 0) chosen_.push_back(expert);
    next_[expert] = begins_[expert];
    begins_[expert + 1] += begins_[expert];
  }
  for (uint64_t entry = 0; entry < entries; ++entry) {
    const uint64_t place = next_[token_experts_[entry]]++;
    rows[place] = static_cast<uint32_t>(entry / rule.per_token);
    weights[place] = token_weights_[entry];
  }
}

void Router::score(const RoutingRule& rule, const float* logits, std::span<const float> correction) {
  const uint32_t experts = rule.experts;
  if (rule.scoring == Scoring::kSoftmax) {
    const float largest_logit = *std::max_element(logits, logits + experts);
    float sum = 0;
    for (uint32_t expert = 0; expert < experts; ++expert) sum += scores_[expert] = std::exp(logits[expert] - largest_logit);
    for (uint32_t expert = 0; expert < experts; ++expert) scores_[expert] /= sum;
  } else {
    for (uint32_t expert = 0; expert < experts; ++expert) scores_[expert] = 1.0f / (1.0f + std::exp(-logits[expert]));
  }
  for (uint32_t expert = 0; expert < experts; ++expert) {
    choices_[expert] = correction.empty() ? scores_[expert] : scores_[expert] + correction[expert];
  }
}

void Router::mask_groups(const RoutingRule& rule) {
  const uint32_t size = rule.experts / rule.group_count;
  const auto group_choices = [&](uint32_t group) { return std::span(choices_).subspan(size_t{group} * size, size); };
  for (uint32_t group = 0; group < rule.group_count; ++group) {
    uint32_t best[2] = {};
    const size_t counted = rule.group_score == GroupScore::kTopTwoSum ? 2 : 1;
    largest(group_choices(group), std::span(best, counted));
    group_scores_[group] = group_choices(group)[best[0]];
    if (counted == 2) group_scores_[group] += group_choices(group)[best[1]];
  }
  const auto kept = std::span(kept_groups_).first(rule.groups_kept);
  largest(std::span(group_scores_).first(rule.group_count), kept);
  for (uint32_t group = 0; group < rule.group_count; ++group) {
    if (std::find(kept.begin(), kept.end(), group) == kept.end()) std::ranges::fill(group_choices(group), -INFINITY);
  }
}

void Router::choose(const RoutingRule& rule, uint32_t* experts, float* weights) {
  largest(std::span(choices_).first(rule.experts), {experts, rule.per_token});
  // Sigmoids may all vanish.
  float sum = rule.scoring == Scoring::kSigmoid ? 1e-20f : 0.0f;
  for (uint32_t i = 0; i < rule.per_token; ++i) sum += weights[i] = scores_[experts[i]];
  for (uint32_t i = 0; i < rule.per_token; ++i) {
    if (rule.normalize) weights[i] /= sum;
    weights[i] *= rule.scale;
  }
}

}  // namespace layerstream
