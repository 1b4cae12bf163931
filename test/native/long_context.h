// Sequences whose keys and values come to a device in several parts.
#pragma once

#include <vector>

#include "loaded_model.h"
#include "synthetic_model.h"

namespace synthetic {

// Room for sequences of some hundred positions.
inline RuntimeDescription with_room(RuntimeDescription description) {
  description.page_count = 60;
  description.max_tokens = 300;
  return description;
}

// The model of synthetic_model.h with such room; its second layer has a window that is longer than a part.
inline RuntimeDescription with_long_context(RuntimeDescription description) {
  description = with_room(description);
  Plan windowed = attention_plan();
  for (Step& step : windowed) {
    if (auto* attention = std::get_if<AttentionStep>(&step)) attention->window = 140;
  }
  description.plans.push_back(windowed);
  for (Stage& stage : description.stages) {
    if (stage.kind == 1 && stage.layer == 1) stage.kind = static_cast<uint32_t>(description.plans.size()) - 1;
  }
  return description;
}

// A prompt of two parts and a bit, a token of it, another sequence, and both in one pass, across the end of a part and alone.
template <class Make>
std::vector<float> long_conversation(Loaded& model, const Make& make) {
  std::vector<float> all;
  const auto tokens = [](uint32_t count, uint32_t seed) {
    std::vector<uint32_t> result(count);
    for (uint32_t i = 0; i < count; ++i) result[i] = (seed + i * 97) % 61;
    return result;
  };
  const auto add = [&](const PassRequest& request) {
    const std::vector<float> next = model.logits(request, false);
    all.insert(all.end(), next.begin(), next.end());
  };
  add(make(tokens(275, 3), 0, 0));
  add(make({5}, 275, 0));
  add(make(tokens(124, 50), 0, 40));
  PassRequest both = make(tokens(2, 7), 276, 0);
  const PassRequest other = make(tokens(9, 8), 124, 40);
  both.tokens.insert(both.tokens.end(), other.tokens.begin(), other.tokens.end());
  both.segments.push_back(other.segments[0]);
  add(both);
  add(make({9}, 133, 40));
  return all;
}

}  // namespace synthetic
