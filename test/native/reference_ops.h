// What ops compute, in float64, from the definitions in backend/ops.h and backend/kv_format.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "../../native/backend/activation.h"
#include "../../native/backend/kv_format.h"

namespace layerstream::reference {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// An absent `up` is 1.
inline double activate(Activation activation, double gate, double up, double alpha, double limit) {
  switch (activation) {
    case Activation::kSilu:
      return gate * sigmoid(gate) * up;
    case Activation::kGelu:
      return gate * 0.5 * std::erfc(-gate / std::sqrt(2.0)) * up;
    case Activation::kGeluTanh:
      // 1 + tanh(u), as 2 / (1 + e^-2u), where nothing cancels.
      return gate / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * std::pow(gate, 3)))) * up;
    case Activation::kClampedSwiglu: {
      const double g = std::fmin(gate, limit);
      return (std::fmax(std::fmin(up, limit), -limit) + 1) * g * sigmoid(alpha * g);
    }
  }
  return std::numeric_limits<double>::quiet_NaN();
}

// One group of a norm, before weight and bias.
template <typename Number>
std::vector<double> normalize(const Number* input, uint32_t width, double epsilon, bool centered) {
  std::vector<double> result(input, input + width);
  const double mean = centered ? std::accumulate(result.begin(), result.end(), 0.0) / width : 0;
  double squares = 0;
  for (double& value : result) {
    value -= mean;
    squares += value * value / width;
  }
  for (double& value : result) value /= std::sqrt(squares + epsilon);
  return result;
}

// A key or a value as the KV cache holds it.
struct CachedVector {
  std::vector<uint8_t> elements;
  float scale = 0;             // of kQ8
  std::vector<double> values;  // what it stands for
};

inline CachedVector encode(KvFormat format, const std::vector<float>& vector) {
  CachedVector result;
  result.values.assign(vector.begin(), vector.end());
  const auto append = [&](const void* source, size_t bytes) {
    const auto* first = static_cast<const uint8_t*>(source);
    result.elements.insert(result.elements.end(), first, first + bytes);
  };
  if (format == KvFormat::kQ8) {
    double magnitude = 0;
    for (const double value : result.values) magnitude = std::max(magnitude, std::abs(value));
    result.scale = static_cast<float>(magnitude / 127);
    for (double& value : result.values) {
      const double code = result.scale == 0 ? 0 : std::nearbyint(static_cast<float>(value / result.scale));
      const auto element = static_cast<int8_t>(code);
      append(&element, 1);
      value = code * result.scale;
    }
    return result;
  }
  for (double& value : result.values) {
    if (format == KvFormat::kBF16) {
      int exponent;
      std::frexp(value, &exponent);
      value = std::ldexp(std::nearbyint(std::ldexp(value, 8 - exponent)), exponent - 8);
    }
    const auto element = static_cast<float>(value);
    const size_t bytes = kv_element_bytes(format);
    append(reinterpret_cast<const uint8_t*>(&element) + sizeof element - bytes, bytes);
  }
  return result;
}

struct AttentionOptions {
  double scale = 1;
  uint32_t window = 0;       // 0: unlimited
  double soft_cap = 0;       // 0: none
  uint32_t logn_length = 0;  // 0: none
  const float* sink = nullptr;
  const float* slope = nullptr;
};

// Attention of one head of the token at `position`. key(p) and value(p) point to what is cached of position p.
template <typename Number, typename Key, typename Value>
std::vector<double> attend(const Number* query, uint32_t head_dim, uint32_t value_dim, uint32_t position, const AttentionOptions& options,
                           const Key& key, const Value& value) {
  const uint32_t first = options.window != 0 && position + 1 > options.window ? position + 1 - options.window : 0;
  const bool stretched = options.logn_length != 0 && position + 1 > options.logn_length;
  const double factor = stretched ? std::log(position + 1.0) / std::log(double{1} * options.logn_length) : 1;
  std::vector<double> scores;
  for (uint32_t other = first; other <= position; ++other) {
    double score = std::inner_product(query, query + head_dim, key(other), 0.0) * factor * options.scale;
    if (options.soft_cap != 0) score = options.soft_cap * std::tanh(score / options.soft_cap);
    if (options.slope != nullptr) score += *options.slope * (double{1} * other - position);
    scores.push_back(score);
  }
  double largest = *std::max_element(scores.begin(), scores.end());
  if (options.sink != nullptr) largest = std::max(largest, double{*options.sink});
  double total = options.sink == nullptr ? 0 : std::exp(*options.sink - largest);
  for (double& score : scores) total += score = std::exp(score - largest);
  std::vector<double> result(value_dim);
  for (uint32_t other = first; other <= position; ++other) {
    const auto* of = value(other);
    for (uint32_t d = 0; d < value_dim; ++d) result[d] += scores[other - first] / total * of[d];
  }
  return result;
}

}  // namespace layerstream::reference
