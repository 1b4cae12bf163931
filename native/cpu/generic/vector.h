// Norm, gate and rotation, written once over sixteen lanes. Included by each instruction set's vector file.
#include <cmath>

#include "../functions.h"
#include "exponential.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

// Four accumulators hide the latency of the additions; a vector's accumulator depends on its place in the group only.
inline float sum_of_squares(const float* input, uint32_t width) {
  Floats totals[4];
  for (Floats& total : totals) total = broadcast(0.0f);
  uint32_t i = 0;
  for (; i + 64 <= width; i += 64) {
    for (int k = 0; k < 4; k++) {
      const Floats value = load(input + i + 16 * k);
      totals[k] = multiply_add(value, value, totals[k]);
    }
  }
  for (int k = 0; i < width; k++, i += 16) {
    const Floats value = width - i < 16 ? load(input + i, width - i) : load(input + i);
    totals[k] = multiply_add(value, value, totals[k]);
  }
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));
}

inline Floats silu(Floats x) {
  const Floats zero = broadcast(0.0f);
  const Floats one = broadcast(1.0f);
  const Floats decay = exponential(select_less(zero, x, zero - x, x));  // e^-|x| cannot overflow
  const Floats numerator = select_less(x, zero, decay, one);
  return x * numerator / (one + decay);
}

}  // namespace

void rms_norm(const float* input, float* output, const float* weight, uint32_t groups, uint32_t width, float epsilon) {
  for (uint32_t group = 0; group < groups; group++) {
    const float* source = input + size_t{group} * width;
    float* target = output + size_t{group} * width;
    const float mean = sum_of_squares(source, width) / static_cast<float>(width);
    const Floats inverse = broadcast(1.0f / std::sqrt(mean + epsilon));
    uint32_t i = 0;
    for (; i + 16 <= width; i += 16) store(target + i, load(source + i) * inverse * load(weight + i));
    if (i < width) {
      const uint32_t left = width - i;
      store(target + i, load(source + i, left) * inverse * load(weight + i, left), left);
    }
  }
}

void silu_multiply(float* gate, const float* up, size_t count) {
  size_t i = 0;
  for (; i + 16 <= count; i += 16) store(gate + i, silu(load(gate + i)) * load(up + i));
  if (i < count) {
    const uint32_t left = static_cast<uint32_t>(count - i);
    store(gate + i, silu(load(gate + i, left)) * load(up + i, left), left);
  }
}

void rope(float* heads_data, uint32_t heads, uint32_t head_dim, uint32_t rotary_dim, const float* cosine,
          const float* sine) {
  const uint32_t half = rotary_dim / 2;
  for (uint32_t head = 0; head < heads; head++) {
    float* first = heads_data + size_t{head} * head_dim;
    float* second = first + half;
    for (uint32_t i = 0; i < half; i += 16) {
      const uint32_t left = half - i < 16 ? half - i : 16;
      const Floats a = load(first + i, left), b = load(second + i, left);
      const Floats c = load(cosine + i, left), s = load(sine + i, left);
      store(first + i, a * c - b * s, left);
      store(second + i, multiply_add(a, s, b * c), left);
    }
  }
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
