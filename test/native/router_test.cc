// The router against a plain float64 implementation of its description, and its corner cases.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "../../native/stream/router.h"
#include "check.h"

using namespace layerstream;

namespace {

// Indices of the `count` largest, of equal ones the lower index first.
std::vector<uint32_t> best_of(const std::vector<double>& values, uint32_t count) {
  std::vector<uint32_t> indices(values.size());
  std::iota(indices.begin(), indices.end(), 0);
  std::stable_sort(indices.begin(), indices.end(), [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  indices.resize(count);
  return indices;
}

// Weight of each chosen expert of one token.
std::map<uint32_t, double> plain_route(const RoutingRule& rule, const float* logits, const std::vector<float>& correction) {
  std::vector<double> scores(logits, logits + rule.experts);
  if (rule.scoring == Scoring::kSoftmax) {
    const double largest = *std::max_element(scores.begin(), scores.end());
    for (double& score : scores) score = std::exp(score - largest);
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (double& score : scores) score /= sum;
  } else {
    for (double& score : scores) score = 1 / (1 + std::exp(-score));
  }
  std::vector<double> choice = scores;
  for (size_t expert = 0; expert < correction.size(); ++expert) choice[expert] += correction[expert];
  if (rule.group_count > 1) {
    const uint32_t size = rule.experts / rule.group_count;
    std::vector<double> groups;
    for (uint32_t group = 0; group < rule.group_count; ++group) {
      const std::vector<double> members(choice.begin() + group * size, choice.begin() + (group + 1) * size);
      const std::vector<uint32_t> best = best_of(members, rule.group_score == GroupScore::kMax ? 1 : 2);
      groups.push_back(members[best[0]] + (best.size() > 1 ? members[best[1]] : 0));
    }
    const std::vector<uint32_t> kept = best_of(groups, rule.groups_kept);
    for (uint32_t expert = 0; expert < rule.experts; ++expert) {
      if (std::find(kept.begin(), kept.end(), expert / size) == kept.end()) choice[expert] = -INFINITY;
    }
  }
  double sum = rule.scoring == Scoring::kSigmoid ? 1e-20 : 0;
  const std::vector<uint32_t> experts = best_of(choice, rule.per_token);
  for (const uint32_t expert : experts) sum += scores[expert];
  std::map<uint32_t, double> weights;
  for (const uint32_t expert : experts) weights[expert] = scores[expert] / (rule.normalize ? sum : 1) * rule.scale;
  return weights;
}

// What the router's tables say, token by token; their order is checked on the way.
std::vector<std::map<uint32_t, float>> tables_of(const Router& router, const RoutingRule& rule, uint32_t tokens,
                                                 const std::vector<uint32_t>& rows, const std::vector<float>& weights) {
  std::vector<std::map<uint32_t, float>> tables(tokens);
  uint64_t entries = 0;
  uint32_t after = 0;
  for (const uint32_t expert : router.chosen()) {
    check(expert >= after && expert < rule.experts, "experts ascend");
    after = expert + 1;
    check(router.begin(expert) == entries && router.count(expert) > 0, "entries follow one another");
    for (uint32_t i = 0; i < router.count(expert); ++i, ++entries) {
      check(rows[entries] < tokens && (i == 0 || rows[entries] > rows[entries - 1]), "tokens ascend");
      tables[rows[entries]][expert] = weights[entries];
    }
  }
  check(entries == uint64_t{tokens} * rule.per_token, "all entries");
  return tables;
}

void test_against_plain() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2);
  Router router;
  for (int round = 0; round < 400; ++round) {
    RoutingRule rule;
    rule.group_count = 1 + random() % 4;
    rule.experts = rule.group_count * (2 + random() % 9);
    rule.groups_kept = 1 + random() % rule.group_count;
    rule.per_token = 1 + random() % (rule.experts / rule.group_count * rule.groups_kept);
    rule.scoring = random() % 2 == 0 ? Scoring::kSoftmax : Scoring::kSigmoid;
    rule.group_score = random() % 2 == 0 ? GroupScore::kMax : GroupScore::kTopTwoSum;
    rule.normalize = random() % 2 == 0;
    rule.scale = random() % 2 == 0 ? 1.0f : 2.5f;
    const uint32_t tokens = 1 + random() % 40;
    const uint32_t stride = rule.experts + random() % 5;
    std::vector<float> logits(size_t{tokens} * stride);
    for (float& logit : logits) logit = normal(random);
    std::vector<float> correction(random() % 2 == 0 ? rule.experts : 0);
    for (float& value : correction) value = 0.5f * normal(random);
    std::vector<uint32_t> rows(size_t{tokens} * rule.per_token, UINT32_MAX);
    std::vector<float> weights(rows.size(), -1);
    router.route(rule, logits.data(), stride, tokens, correction, rows.data(), weights.data());
    const auto tables = tables_of(router, rule, tokens, rows, weights);
    for (uint32_t token = 0; token < tokens; ++token) {
      const auto expected = plain_route(rule, logits.data() + size_t{token} * stride, correction);
      check(tables[token].size() == expected.size(), "experts of a token");
      for (const auto& [expert, weight] : expected) {
        const auto found = tables[token].find(expert);
        check(found != tables[token].end(), "another expert, round " + std::to_string(round));
        check(std::abs(found->second - weight) <= 1e-6 * std::abs(weight) + 1e-12, "another weight");
      }
    }
  }
}

std::vector<uint32_t> chosen_by_one(const RoutingRule& rule, const std::vector<float>& logits, const std::vector<float>& correction,
                                    std::vector<float>* weights = nullptr) {
  Router router;
  std::vector<uint32_t> rows(rule.per_token);
  std::vector<float> values(rule.per_token);
  router.route(rule, logits.data(), rule.experts, 1, correction, rows.data(), values.data());
  tables_of(router, rule, 1, rows, values);
  if (weights != nullptr) *weights = values;
  return {router.chosen().begin(), router.chosen().end()};
}

void test_corners() {
  RoutingRule rule{.experts = 6, .per_token = 2};
  check(chosen_by_one(rule, {1, 1, 1, 1, 1, 1}, {}) == std::vector<uint32_t>{0, 1}, "ties go to the lower index");
  check(chosen_by_one(rule, {0, 3, 0, 3, 3, 0}, {}) == std::vector<uint32_t>{1, 3}, "ties of the best");
  check(chosen_by_one(rule, {0, 1, 2, 3, 4, 5}, {9, 9, 0, 0, 0, 0}) == std::vector<uint32_t>{0, 1}, "a correction decides");

  // The second group is worth more by its two best, the first by its best one.
  rule = {.experts = 4, .per_token = 1, .group_count = 2, .groups_kept = 1};
  check(chosen_by_one(rule, {3, 0, 2, 2}, {}) == std::vector<uint32_t>{0}, "groups by their best");
  rule.scoring = Scoring::kSigmoid;
  rule.group_score = GroupScore::kTopTwoSum;
  check(chosen_by_one(rule, {3, -2, 2, 2}, {}) == std::vector<uint32_t>{2}, "groups by their two best");
  // Experts of other groups are out of the choice, even when corrections make all others negative.
  rule.per_token = 2;
  check(chosen_by_one(rule, {0, 0, 0, 0}, {-1, -1, -2, -2}) == std::vector<uint32_t>({0, 1}), "masked experts are never chosen");

  std::vector<float> weights;
  rule = {.experts = 3, .per_token = 2, .scoring = Scoring::kSigmoid, .normalize = true};
  chosen_by_one(rule, {-200, -200, -200}, {}, &weights);
  check(weights == std::vector<float>({0, 0}), "scores that vanish");
  rule = {.experts = 3, .per_token = 3, .normalize = true};
  chosen_by_one(rule, {1000, 1000, -1000}, {}, &weights);
  check(weights == std::vector<float>({0.5f, 0.5f, 0}), "large logits");

  // Whatever the numbers, tables stay valid: no index may leave them.
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Scoring scoring : {Scoring::kSoftmax, Scoring::kSigmoid}) {
    rule = {.experts = 6, .per_token = 4, .scoring = scoring, .group_count = 3, .groups_kept = 2, .group_score = GroupScore::kTopTwoSum};
    for (const std::vector<float>& logits : std::vector<std::vector<float>>{
             {nan, nan, nan, nan, nan, nan}, {1, nan, 2, nan, 3, nan}, {nan, 1, 2, 3, 4, 5}, {infinity, -infinity, 0, infinity, nan, 1}}) {
      check(chosen_by_one(rule, logits, {}).size() == 4, "not numbers");
    }
  }
}

}  // namespace

int main() {
  test_against_plain();
  test_corners();
  printf("router_test: %d checks passed\n", checks.load());
}
