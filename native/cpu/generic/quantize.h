// Quantizers, written once over sixteen lanes. Included by each instruction set's quantize file after its simd.h.
//
// Only operations that IEEE 754 rounds exactly are used, never fused, always in the same order, so that every
// instruction set writes the same bytes.
#include <cstddef>

#include "../functions.h"
#include "../../platform/half.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr int32_t kInfinityBits = 0x7f800000;

// Trial scales of a q4 block, as fractions of its largest magnitude: around the magnitude, and one that brings it to
// the second largest level, for flat blocks. Both signs, because the levels are not symmetric. A normal distribution's
// squared error becomes 0.816 of the plain magnitude's, the least possible is 0.808 (test/native/quantize_bench.cc).
constexpr int16_t kTrialFactors[] = {
    trial_factor(0.84), trial_factor(-0.84),
    trial_factor(0.88), trial_factor(-0.88),
    trial_factor(0.92), trial_factor(-0.92),
    trial_factor(0.96), trial_factor(-0.96),
    trial_factor(1.00), trial_factor(-1.00),
    trial_factor(1.04), trial_factor(-1.04),
    trial_factor(1.38), trial_factor(-1.38),
};

// Below this every scale rounds to a float16 zero.
constexpr float kLeastMagnitude = 0x1p-25f;

template <Format kSource>
constexpr size_t kElementBytes = kSource == Format::kF32 ? 4 : 2;

template <Format kSource>
inline Floats load_elements(const uint8_t* source) {
  if constexpr (kSource == Format::kF32) return load_f32(source);
  if constexpr (kSource == Format::kF16) return load_f16(source);
  if constexpr (kSource == Format::kBF16) return load_bf16(source);
}

// The first `count` lanes, at most 16; the others are 0.
template <Format kSource>
inline Floats load_elements(const uint8_t* source, uint32_t count) {
  if (count >= 16) return load_elements<kSource>(source);
  uint8_t padded[16 * kElementBytes<kSource>] = {};
  std::memcpy(padded, source, count * kElementBytes<kSource>);
  return load_elements<kSource>(padded);
}

inline void store_half(uint8_t* target, uint16_t half) { std::memcpy(target, &half, sizeof half); }

// One block of `count` weights, padded to `block`, a multiple of 16. Scale: the largest magnitude, rounded up so that
// no code passes 127.
template <Format kSource>
bool quantize_q8_block(const uint8_t* source, uint32_t count, uint32_t block, uint8_t* codes, uint8_t* scale) {
  Integers bits = absolute_bits(broadcast(0.0f));
  for (uint32_t i = 0; i < count; i += 16) {
    bits = maximum(bits, absolute_bits(load_elements<kSource>(source + i * kElementBytes<kSource>, count - i)));
  }
  const int32_t magnitude_bits = largest(bits);
  if (magnitude_bits >= kInfinityBits) return false;
  const float magnitude = float_from_bits(static_cast<uint32_t>(magnitude_bits));
  if (magnitude > kLargestHalf) return false;
  const uint16_t half = half_above(magnitude);
  store_half(scale, half);
  const Floats inverse = broadcast(half == 0 ? 0.0f : 127.0f / float_from_half(half));
  for (uint32_t i = 0; i < block; i += 16) {
    const Floats weights =
        i < count ? load_elements<kSource>(source + i * kElementBytes<kSource>, count - i) : broadcast(0.0f);
    store_int8(reinterpret_cast<int8_t*>(codes + i), weights * inverse);
  }
  return true;
}

// The scale that fits the levels of the best trial in the least-squares sense: sum(weight * level) / sum(level^2). It
// lowers the squared error from sum(weight^2) by sum(weight * level)^2 / sum(level^2).
inline float search_scale(const Floats weights[4], float magnitude) {
  const FixedBlock block = to_fixed(weights, 1.0f / magnitude);
  float best_gain = 0.0f;
  float best_ratio = 0.0f;
  for (int16_t factor : kTrialFactors) {
    const TrialSums sums = try_scale(block, factor);
    const float ratio = static_cast<float>(sums.product) / static_cast<float>(sums.square);
    const float gain = ratio * static_cast<float>(sums.product);
    const bool better = gain > best_gain;
    best_gain = better ? gain : best_gain;
    best_ratio = better ? ratio : best_ratio;
  }
  return magnitude * best_ratio;
}

template <Format kSource>
bool quantize_q4_block(const uint8_t* source, uint32_t count, uint8_t* codes, uint8_t* scale) {
  Floats weights[4];
  Integers bits = absolute_bits(broadcast(0.0f));
  for (uint32_t k = 0; k < 4; k++) {
    weights[k] = 16 * k < count ? load_elements<kSource>(source + 16 * k * kElementBytes<kSource>, count - 16 * k)
                                : broadcast(0.0f);
    bits = maximum(bits, absolute_bits(weights[k]));
  }
  const int32_t magnitude_bits = largest(bits);
  if (magnitude_bits >= kInfinityBits) return false;
  const float magnitude = float_from_bits(static_cast<uint32_t>(magnitude_bits));
  if (magnitude > kLargestHalf) return false;

  uint16_t half = 0;
  if (magnitude >= kLeastMagnitude) {
    const float searched = search_scale(weights, magnitude);
    const float limited = searched > kLargestHalf ? kLargestHalf : searched < -kLargestHalf ? -kLargestHalf : searched;
    half = half_nearest(limited);
  }
  const bool zero = (half & 0x7fff) == 0;
  store_half(scale, zero ? uint16_t{0} : half);
  const Floats inverse = broadcast(zero ? 0.0f : 1.0f / float_from_half(half));
  Integers levels[4];
  for (int k = 0; k < 4; k++) levels[k] = nearest_level(weights[k] * inverse);
  store_nibbles(codes, levels);
  return true;
}

template <Format kSource>
bool quantize_rows(const QuantizeArgs& args) {
  const bool q8 = args.format == Format::kQ8;
  const uint32_t block = q8 ? args.block : kQ4Block;
  const size_t blocks = (size_t{args.columns} + block - 1) / block;
  const size_t code_bytes = q8 ? block : kQ4Block / 2;
  const size_t row_stride = blocks * (code_bytes + 2);
  for (size_t row = 0; row < args.rows; row++) {
    const uint8_t* source = args.source + row * args.columns * kElementBytes<kSource>;
    uint8_t* codes = args.output + row * row_stride;
    uint8_t* scales = codes + blocks * code_bytes;
    for (size_t i = 0; i < blocks; i++) {
      const size_t begin = i * block;
      const size_t left = args.columns - begin;
      const uint32_t count = left < block ? static_cast<uint32_t>(left) : block;
      const uint8_t* weights = source + begin * kElementBytes<kSource>;
      const bool finite = q8 ? quantize_q8_block<kSource>(weights, count, block, codes + i * code_bytes, scales + 2 * i)
                             : quantize_q4_block<kSource>(weights, count, codes + i * code_bytes, scales + 2 * i);
      if (!finite) return false;
    }
  }
  return true;
}

}  // namespace

bool quantize(const QuantizeArgs& args) {
  switch (args.source_format) {
    case Format::kF32:
      return quantize_rows<Format::kF32>(args);
    case Format::kF16:
      return quantize_rows<Format::kF16>(args);
    case Format::kBF16:
      return quantize_rows<Format::kBF16>(args);
    default:
      return false;
  }
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
