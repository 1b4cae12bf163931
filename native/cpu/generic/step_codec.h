// What codecs share that decode all weights of a step of a row in one go. Such a Codec has, besides what product.h asks
// for,
//   code_bytes     of a row; scales lie behind them, if not among them
//   kParts         parts of 64 columns in a step
//   Place          made from (codec, column, width) of a chunk, with
//     scales(row)                   where the chunk's scales begin
//     load_scales(row, Scales&)
//     decode<kPart>(codes, row, scales, step, sink)       sink(v, weights 16 * v ... of the part), v ascending
//
// An instruction set's decode.h supplies for it:
//   kFastLookUp                                   look_up is cheaper than arithmetic
//   kInlineDecoding                               else parts are decoded by functions: portable lanes are long code
//   Integers load_bytes(const uint8_t* source)    16 bytes, zero-extended
//   Integers from_bytes(uint64_t low, uint64_t high)       the same of two words of eight
//   Integers shift<kRight>(Integers)              logical, to the left where negative
//   Integers operator&(Integers, int32_t), operator|(Integers, Integers)
//   Integers or_where(Integers value, uint32_t lanes, int32_t bits)        value | bits in lanes whose bit is set
//   Floats to_floats(Integers), Floats bits_to_floats(Integers)            numbers, bits of float32
//   Floats look_up(Floats table, Integers index)  by the index' low four bits
//   Floats broadcast_half(const uint8_t* source)
//   Bytes load_64(const uint8_t* source), load_twice(const uint8_t* source)         64 bytes, or 32 and the same again
//   Bytes shift_bytes<kFirst, kSecond>(Bytes)     the halves' bytes to the right (left where negative); bits that come from
//                                                 neighbouring bytes are undefined
//   Bytes merge(Bytes a, uint8_t mask_a, Bytes b, uint8_t mask_b)          (a & mask_a) | (b & mask_b)
//   Floats to_floats<v>(Bytes)                    bytes 16 * v ... 16 * v + 15
//   void decode_float8(const uint8_t codes[64], Floats weights[4])
#pragma once

#include <utility>

#include "product.h"

#if defined(_MSC_VER)
#define LAYERSTREAM_NOINLINE __declspec(noinline)
#else
#define LAYERSTREAM_NOINLINE __attribute__((noinline))
#endif

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

template <class Function, uint32_t... kIndices>
inline void unroll(Function&& function, std::integer_sequence<uint32_t, kIndices...>) {
  (function(std::integral_constant<uint32_t, kIndices>{}), ...);
}
// function(0) ... function(kCount - 1), with numbers that are constants to the compiler.
template <uint32_t kCount, class Function>
inline void unroll(Function&& function) {
  unroll(std::forward<Function>(function), std::make_integer_sequence<uint32_t, kCount>{});
}

constexpr uint32_t kPartVectors = kMatmulStep / kMatmulLanes;

struct NoScales {};

template <class Codec>
class StepChunk {
 public:
  using Scales = typename Codec::Scales;

  StepChunk(const Codec& codec, uint32_t column, uint32_t width)
      : place_(codec, column, width),
        code_offset_(size_t{column} / Codec::kStep * Codec::kStepBytes),
        left_(codec.code_bytes - code_offset_),
        steps_(width / Codec::kStep) {}

  uint32_t steps() const { return steps_; }

  void load_scales(const uint8_t* row, Scales& output) const { place_.load_scales(row, output); }

  const uint8_t* scales(const uint8_t* row) const { return place_.scales(row); }

  const uint8_t* step_codes(const uint8_t* row, uint32_t step) const {
    return row + code_offset_ + size_t{step} * Codec::kStepBytes;
  }

  void pad_last_step(const uint8_t* row, uint8_t* output) const {
    const size_t left = left_ - size_t{steps_} * Codec::kStepBytes;
    const size_t bytes = left < Codec::kStepBytes ? left : Codec::kStepBytes;
    std::memcpy(output, step_codes(row, steps_), bytes);
    std::memset(output + bytes, 0, Codec::kStepBytes - bytes);
  }

  template <class Sink>
  void decode_step(const uint8_t* codes, const uint8_t* row, const Scales& scales, uint32_t step, Sink&& sink) const {
    unroll<Codec::kParts>([&](auto part) {
      decode_part<part>(codes, row, scales, step,
                        [&](uint32_t v, Floats weights) { sink(part * kPartVectors + v, weights); });
    });
  }

  // Rows take turns part by part, so that the sums of several are under way at a time.
  void multiply_step(const uint8_t* const* codes, const uint8_t* const* rows, const Scales* scales, uint32_t step,
                     const float* input, Floats* accumulators) const {
    unroll<Codec::kParts>([&](auto part) {
      for (uint32_t r = 0; r < Codec::kRows; ++r) {
        Floats sum = accumulators[r];
        decode_part<part>(codes[r], rows[r], scales[r], step, [&](uint32_t v, Floats weights) {
          sum = multiply_add(weights, load(input + (part * kPartVectors + v) * kMatmulLanes), sum);
        });
        accumulators[r] = sum;
      }
    });
  }

 private:
  template <uint32_t kPart, class Sink>
  void decode_part(const uint8_t* codes, const uint8_t* row, const Scales& scales, uint32_t step, Sink&& sink) const {
    if constexpr (kInlineDecoding) {
      place_.template decode<kPart>(codes, row, scales, step, sink);
    } else {
      Floats weights[kPartVectors];
      decode_apart<kPart>(codes, row, scales, step, weights);
      for (uint32_t v = 0; v < kPartVectors; ++v) sink(v, weights[v]);
    }
  }

  template <uint32_t kPart>
  LAYERSTREAM_NOINLINE void decode_apart(const uint8_t* codes, const uint8_t* row, const Scales& scales, uint32_t step,
                                         Floats* weights) const {
    place_.template decode<kPart>(codes, row, scales, step,
                                  [&](uint32_t v, Floats decoded) { weights[v] = decoded; });
  }

  typename Codec::Place place_;
  size_t code_offset_;
  size_t left_;  // bytes of codes from there
  uint32_t steps_;
};

template <class Number>
inline Number read(const uint8_t* source) {
  Number value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

struct alignas(kMatmulAlignment) LaneValues {
  float values[16];
};

constexpr LaneValues make_ramp(uint32_t bits) {
  LaneValues ramp = {};
  for (uint32_t i = 0; i < 16; ++i) ramp.values[i] = static_cast<float>(i & ((1u << bits) - 1));
  return ramp;
}

template <uint32_t kBits>
constexpr LaneValues kRamp = make_ramp(kBits);

// Of a scale, for codes that are still in the high nibble of a byte.
constexpr float kHighNibble = 0x1p-4f;

// code * scale + offset, of the codes in the high nibbles of sixteen bytes, where `scale` has been multiplied by kHighNibble.
inline Floats high_nibbles(Integers bytes, Floats scale, Floats offset) {
  return multiply_add(to_floats(bytes & 240), scale, offset);
}

// Sixteen entries of an array in a row, from entry `wanted` on. At the array's end they begin earlier, so as not to read
// past it: the wanted entry is that in lane skipped().
class Window {
 public:
  Window() = default;
  Window(size_t begin, size_t entry_bytes, uint32_t count, uint32_t wanted)
      : skipped_(wanted + kMatmulLanes > count ? wanted + kMatmulLanes - count : 0),
        missing_(begin + entry_bytes * wanted < entry_bytes * skipped_ ? entry_bytes * (kMatmulLanes - count) : 0),
        offset_(missing_ > 0 ? begin : begin + entry_bytes * wanted - entry_bytes * skipped_) {}

  uint32_t skipped() const { return skipped_; }

  // decode(the entries' bytes)
  template <size_t kEntryBytes, class Decode>
  auto load(const uint8_t* row, Decode&& decode) const {
    if (missing_ == 0) return decode(row + offset_);
    uint8_t copy[kMatmulLanes * kEntryBytes] = {};
    for (size_t i = missing_; i < sizeof copy; ++i) copy[i] = row[offset_ + i - missing_];
    return decode(static_cast<const uint8_t*>(copy));
  }

 private:
  uint32_t skipped_ = 0;
  size_t missing_ = 0;  // bytes of the window that lie before the row, in the shortest rows
  size_t offset_ = 0;
};

// code * scale + offset, of codes in the lowest kBits of lanes; if those are at most 4, bits above are ignored. No format's code and scale have more than 24 significant
// bits together, so that products are exact, and fused and separate arithmetic give the same bits.
template <uint32_t kBits>
class Affine {
  static constexpr bool kTable = kFastLookUp && kBits <= 4;

 public:
  Affine(Floats scale, Floats offset)
      : scale_(kTable ? multiply_add(load(kRamp<kBits>.values), scale, offset) : scale), offset_(offset) {}

  // (code - center) * scale
  static Affine centered(Floats scale, float center) { return Affine(scale, scale * broadcast(-center)); }

  Floats operator()(Integers codes) const {
    if constexpr (kTable) return look_up(scale_, codes);
    return multiply_add(to_floats(kBits <= 4 ? codes & ((1 << kBits) - 1) : codes), scale_, offset_);
  }

 private:
  Floats scale_;  // the table of all results, if there is one
  Floats offset_;
};

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
