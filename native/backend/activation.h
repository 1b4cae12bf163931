// The functions between the two halves of an MLP.
#pragma once

#include <cstdint>

namespace layerstream {

enum class Activation : uint8_t {
  kSilu,      // x * sigmoid(x)
  kGelu,      // x * P(z <= x), where z has the standard normal distribution
  kGeluTanh,  // x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
  // Of two factors: with g = min(gate, limit) and u = up clamped to [-limit, limit], g * sigmoid(alpha * g) * (u + 1).
  kClampedSwiglu,
};

}  // namespace layerstream
