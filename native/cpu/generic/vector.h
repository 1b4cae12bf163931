// Norms, activations, rotation and caps, written once over sixteen lanes. Included by each instruction set's vector file.
#include <cmath>

#include "../functions.h"
#include "exponential.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

inline uint32_t lanes_at(size_t i, size_t count) { return count - i < 16 ? static_cast<uint32_t>(count - i) : 16; }

inline Floats load_lanes(const float* source, uint32_t lanes) { return lanes == 16 ? load(source) : load(source, lanes); }
inline void store_lanes(float* target, Floats value, uint32_t lanes) {
  if (lanes == 16) {
    store(target, value);
  } else {
    store(target, value, lanes);
  }
}

// Adds up the vectors of the input by add(total, vector, lanes), where the lanes past the end are 0. Four accumulators
// hide the latency of the additions; a vector's accumulator depends on its place in the group only.
template <typename Function>
inline float sum_vectors(const float* input, uint32_t width, const Function& add) {
  Floats totals[4];
  for (Floats& total : totals) total = broadcast(0.0f);
  uint32_t i = 0;
  for (; i + 64 <= width; i += 64) {
    for (int k = 0; k < 4; k++) totals[k] = add(totals[k], load(input + i + 16 * k), 16);
  }
  for (int k = 0; i < width; k++, i += 16) {
    const uint32_t lanes = lanes_at(i, width);
    totals[k] = add(totals[k], load_lanes(input + i, lanes), lanes);
  }
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

inline float sum_of_squares(const float* input, uint32_t width) {
  return sum_vectors(input, width, [](Floats total, Floats x, uint32_t) { return multiply_add(x, x, total); });
}

inline float sum_of(const float* input, uint32_t width) {
  return sum_vectors(input, width, [](Floats total, Floats x, uint32_t) { return total + x; });
}

inline float sum_of_squared_distances(const float* input, uint32_t width, float mean) {
  return sum_vectors(input, width, [mean](Floats total, Floats x, uint32_t lanes) {
    Floats distance = x - broadcast(mean);
    if (lanes < 16) {
      float existing[16] = {};
      store(existing, distance, lanes);
      distance = load(existing);
    }
    return multiply_add(distance, distance, total);
  });
}

// gate = function(gate, up), sixteen at a time; an `up` that is null counts as 1.
template <typename Function>
inline void map_gate(const ActivationArgs& args, const Function& function) {
  for (size_t i = 0; i < args.count; i += 16) {
    const uint32_t lanes = lanes_at(i, args.count);
    const Floats up = args.up == nullptr ? broadcast(1.0f) : load_lanes(args.up + i, lanes);
    store_lanes(args.gate + i, function(load_lanes(args.gate + i, lanes), up), lanes);
  }
}

// tanh(u) = 2 sigmoid(2u) - 1, so that x / 2 * (1 + tanh(u)) = x * sigmoid(2u), where nothing cancels.
inline Floats gelu_tanh(Floats x) {
  const Floats slope = multiply_add(x * x, broadcast(0.044715f), broadcast(1.0f));
  return times_sigmoid(x, x * slope * broadcast(1.59576912f /* 2 sqrt(2 / pi) */));
}

inline void rotate_halves(const RopeArgs& args, float* head) {
  const uint32_t half = args.rotary_dim / 2;
  float* const first = head;
  float* const second = head + half;
  for (uint32_t i = 0; i < half; i += 16) {
    const uint32_t lanes = lanes_at(i, half);
    const Floats a = load_lanes(first + i, lanes), b = load_lanes(second + i, lanes);
    const Floats c = load_lanes(args.cosine + i, lanes), s = load_lanes(args.sine + i, lanes);
    store_lanes(first + i, a * c - b * s, lanes);
    store_lanes(second + i, multiply_add(a, s, b * c), lanes);
  }
}

inline void rotate_neighbours(const RopeArgs& args, float* head) {
  for (uint32_t i = 0; i < args.rotary_dim / 2; i++) {
    const float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * args.cosine[i] - b * args.sine[i];
    head[2 * i + 1] = a * args.sine[i] + b * args.cosine[i];
  }
}

}  // namespace

void norm(const NormArgs& args) {
  for (uint32_t group = 0; group < args.groups; group++) {
    const size_t first = size_t{group} * args.width;
    const size_t first_weight = args.group_weights ? first : 0;
    const float* const input = args.input + first;
    const float count = static_cast<float>(args.width);
    const float mean = args.centered ? sum_of(input, args.width) / count : 0.0f;
    const float squares =
        args.centered ? sum_of_squared_distances(input, args.width, mean) : sum_of_squares(input, args.width);
    const Floats shift = broadcast(mean);
    const Floats inverse = broadcast(1.0f / std::sqrt(squares / count + args.epsilon));
    for (uint32_t i = 0; i < args.width; i += 16) {
      const uint32_t lanes = lanes_at(i, args.width);
      float* const output = args.output + first + i;
      Floats value = (load_lanes(input + i, lanes) - shift) * inverse;
      if (args.weight != nullptr) value = value * load_lanes(args.weight + first_weight + i, lanes);
      if (args.bias != nullptr) value = value + load_lanes(args.bias + first_weight + i, lanes);
      store_lanes(output, args.accumulate ? load_lanes(output, lanes) + value : value, lanes);
    }
  }
}

void activate(const ActivationArgs& args) {
  switch (args.activation) {
    case Activation::kSilu:
      return map_gate(args, [](Floats gate, Floats up) { return times_sigmoid(gate, gate) * up; });
    case Activation::kGelu:
      return map_gate(args, [](Floats gate, Floats up) { return gate * normal_probability(gate) * up; });
    case Activation::kGeluTanh:
      return map_gate(args, [](Floats gate, Floats up) { return gelu_tanh(gate) * up; });
    case Activation::kClampedSwiglu:
      return map_gate(args, [&](Floats gate, Floats up) {
        const Floats limit = broadcast(args.limit);
        const Floats least = broadcast(-args.limit);
        const Floats g = select_less(limit, gate, limit, gate);
        const Floats u = select_less(limit, up, limit, select_less(up, least, least, up));
        return times_sigmoid(g, broadcast(args.alpha) * g) * (u + broadcast(1.0f));
      });
  }
}

void rope(const RopeArgs& args) {
  for (uint32_t head = 0; head < args.heads; head++) {
    float* const target = args.target + size_t{head} * args.head_dim + args.offset;
    if (args.interleaved) {
      rotate_neighbours(args, target);
    } else {
      rotate_halves(args, target);
    }
  }
}

void soft_cap(float* values, size_t count, float cap) {
  const Floats limit = broadcast(cap);
  for (size_t i = 0; i < count; i += 16) {
    const uint32_t lanes = lanes_at(i, count);
    store_lanes(values + i, limit * hyperbolic_tangent(load_lanes(values + i, lanes) / limit), lanes);
  }
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
