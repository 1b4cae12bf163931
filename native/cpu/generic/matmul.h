// Codecs of plain elements and of layerstream's own quantized formats. Included by each instruction set's matmul file
// after its decode.h.
#include "product.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr uint32_t kScales = kMatmulLanes;  // the most that a chunk needs: q8 blocks have at least 32 columns
constexpr uint32_t kVectors = kMatmulStep / kMatmulLanes;

constexpr bool is_quantized(Format format) { return format == Format::kQ8 || format == Format::kQ4; }

// Bytes of the codes of kMatmulStep columns.
constexpr size_t step_bytes(Format format) {
  return format == Format::kF32 ? 256 : format == Format::kQ8 ? 64 : format == Format::kQ4 ? 32 : 128;
}

// Weights 16 * v ... 16 * v + 15 of the 64 at `codes`, still to be scaled in q8.
template <Format kFormat>
inline Floats decode(const uint8_t* codes, float scale, uint32_t v) {
  const uint8_t* const source = codes + v * (step_bytes(kFormat) / kVectors);
  if constexpr (kFormat == Format::kF32) return load_f32(source);
  if constexpr (kFormat == Format::kF16) return load_f16(source);
  if constexpr (kFormat == Format::kBF16) return load_bf16(source);
  if constexpr (kFormat == Format::kQ8) return load_int8(source);
  if constexpr (kFormat == Format::kQ4) return levels(codes, scale, v);
}

// The scales of a row in a chunk, and zero for the columns past the end.
struct alignas(kMatmulAlignment) ChunkScales {
  float values[kScales + 1];
};

template <Format kFormat, bool kTwoScales>
class ChunkOf;

// Where codes and scales lie in every row. A step has two scales if blocks are of 32 columns.
template <Format kFormat, bool kTwoScales = false>
struct PlainCodec {
  static constexpr uint32_t kRows = is_quantized(kFormat) ? kQuantizedRows : kVectorRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr size_t kStepBytes = step_bytes(kFormat);
  using Scales = ChunkScales;
  using Chunk = ChunkOf<kFormat, kTwoScales>;

  PlainCodec(uint32_t columns, uint32_t block) {
    if constexpr (is_quantized(kFormat)) {
      while ((block >> block_shift) > 1) ++block_shift;
      scales = (columns + block - 1) / block;
      code_bytes = size_t{scales} * block * kStepBytes / kMatmulStep;
    } else {
      code_bytes = size_t{columns} * kStepBytes / kMatmulStep;
    }
  }

  size_t code_bytes;  // scales follow
  uint32_t scales = 0;
  uint32_t block_shift = 0;  // log2 of the columns that share a scale
};

// Where a chunk lies in every row. A row's scales are decoded sixteen at a time, if need be from before the chunk's
// first on, so as not to read past the row's end.
template <Format kFormat, bool kTwoScales>
class ChunkOf {
  using Codec = PlainCodec<kFormat, kTwoScales>;

 public:
  ChunkOf(const Codec& codec, uint32_t column, uint32_t width)
      : code_offset_(size_t{column} / kMatmulStep * Codec::kStepBytes),
        left_(codec.code_bytes - code_offset_),
        block_shift_(codec.block_shift),
        steps_(width / kMatmulStep) {
    if constexpr (is_quantized(kFormat)) {
      const uint32_t wanted = column >> block_shift_;
      const uint32_t last = codec.scales < kScales ? 0 : codec.scales - kScales;
      const uint32_t first = smaller(wanted, last);
      scale_offset_ = codec.code_bytes + size_t{2} * first;
      scales_ = smaller(codec.scales - first, kScales);
      skipped_ = wanted - first;
    }
  }

  uint32_t steps() const { return steps_; }

  const uint8_t* scales(const uint8_t* row) const { return row + scale_offset_; }

  void load_scales(const uint8_t* row, ChunkScales& output) const {
    if constexpr (is_quantized(kFormat)) {
      Floats scales;
      if (scales_ == kScales) {
        scales = load_f16(row + scale_offset_);
      } else {
        uint8_t padded[2 * kScales] = {};
        std::memcpy(padded, row + scale_offset_, 2 * scales_);
        scales = load_f16(padded);
      }
      store(output.values, kFormat == Format::kQ8 ? scales / broadcast(127.0f) : scales);
      output.values[kScales] = 0.0f;
    }
  }

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
  void decode_step(const uint8_t* codes, const uint8_t*, const ChunkScales& scales, uint32_t step, Sink&& sink) const {
    for (uint32_t v = 0; v < kVectors; ++v) {
      Floats decoded;
      weights<1>(&codes, &scales, step, v, &decoded);
      sink(v, decoded);
    }
  }

  void multiply_step(const uint8_t* const* codes, const uint8_t* const*, const ChunkScales* scales, uint32_t step,
                     const float* input, Floats* accumulators) const {
    for (uint32_t v = 0; v < kVectors; ++v) {
      const Floats x = load(input + v * kMatmulLanes);
      Floats decoded[Codec::kRows];
      weights<Codec::kRows>(codes, scales, step, v, decoded);
      for (uint32_t r = 0; r < Codec::kRows; ++r) accumulators[r] = multiply_add(decoded[r], x, accumulators[r]);
    }
  }

 private:
  // Weights 16 * v ... 16 * v + 15 of a step of kRows rows, in stages that leave processors the most to overlap.
  template <uint32_t kRows>
  void weights(const uint8_t* const* codes, const ChunkScales* scales, uint32_t step, uint32_t v,
               Floats* output) const {
    for (uint32_t r = 0; r < kRows; ++r) output[r] = decode<kFormat>(codes[r], scale(scales[r], step, v), v);
    if constexpr (kFormat == Format::kQ8) {
      for (uint32_t r = 0; r < kRows; ++r) output[r] = output[r] * broadcast(scale(scales[r], step, v));
    }
  }

  float scale(const ChunkScales& scales, uint32_t step, uint32_t v) const {
    if constexpr (kFormat == Format::kQ8) {
      const uint32_t column = step * kMatmulStep + (kTwoScales ? v / (kVectors / 2) * (kMatmulStep / 2) : 0);
      return scales.values[skipped_ + (column >> block_shift_)];
    }
    if constexpr (kFormat == Format::kQ4) return scales.values[skipped_ + step];
    return 1.0f;
  }

  size_t code_offset_;
  size_t left_;  // bytes of codes from there
  uint32_t block_shift_;
  uint32_t steps_;
  size_t scale_offset_ = 0;
  uint32_t scales_ = 0;
  uint32_t skipped_ = 0;
};

}  // namespace

void matmul_f32(const MatmulArgs& args) { multiply<PlainCodec<Format::kF32>>(args); }
void matmul_f16(const MatmulArgs& args) { multiply<PlainCodec<Format::kF16>>(args); }
void matmul_bf16(const MatmulArgs& args) { multiply<PlainCodec<Format::kBF16>>(args); }
void matmul_q8(const MatmulArgs& args) {
  if (args.block < kMatmulStep) {
    multiply<PlainCodec<Format::kQ8, true>>(args);
  } else {
    multiply<PlainCodec<Format::kQ8>>(args);
  }
}
void matmul_q4(const MatmulArgs& args) { multiply<PlainCodec<Format::kQ4>>(args); }

void dequantize_row_f32(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<PlainCodec<Format::kF32>>(row, columns, block, output);
}
void dequantize_row_f16(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<PlainCodec<Format::kF16>>(row, columns, block, output);
}
void dequantize_row_bf16(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<PlainCodec<Format::kBF16>>(row, columns, block, output);
}
void dequantize_row_q8(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  if (block < kMatmulStep) {
    dequantize<PlainCodec<Format::kQ8, true>>(row, columns, block, output);
  } else {
    dequantize<PlainCodec<Format::kQ8>>(row, columns, block, output);
  }
}
void dequantize_row_q4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<PlainCodec<Format::kQ4>>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
