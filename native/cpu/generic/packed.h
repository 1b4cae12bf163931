// Codecs of the formats that already quantized checkpoints are repacked to: uint2 to uint8, fp8, mxfp4, nf4.
#include "step_codec.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr uint8_t kOnes[kMatmulLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

constexpr uint32_t steps_of(uint32_t columns) { return columns / kMatmulStep + (columns % kMatmulStep != 0); }

// A format's groups: `count` of them, each of `vectors` vectors of columns.
struct GroupLayout {
  GroupLayout(uint32_t columns, uint32_t block)
      : vectors(block >= columns ? UINT32_MAX : block / kMatmulLanes),
        count(block >= columns ? 1 : columns / block + (columns % block != 0)) {}

  uint32_t vectors;
  uint32_t count;
};

// The groups of the vectors of a chunk, counted from its first. Vectors past the row's end belong to the last group.
class Groups {
 public:
  Groups(const GroupLayout& layout, uint32_t column) {
    const uint32_t vector = column / kMatmulLanes;
    first_ = vector / layout.vectors;
    last_ = layout.count - 1 - first_;
    // Groups longer than a chunk end at most once in it: they count as chunks.
    const uint32_t length = smaller(layout.vectors, kChunkVectors);
    phase_ = length - smaller(layout.vectors - vector % layout.vectors, length);
    reciprocal_ = ((1u << 16) + length - 1) / length;
  }

  uint32_t first() const { return first_; }

  // The quotient is exact: both summands are below 32.
  uint32_t of(uint32_t vector) const { return smaller((phase_ + vector) * reciprocal_ >> 16, last_); }

 private:
  static constexpr uint32_t kChunkVectors = kMatmulChunk / kMatmulLanes;
  static_assert(kChunkVectors == 32);

  uint32_t first_;
  uint32_t last_;
  uint32_t phase_;  // vectors of the first group that lie before the chunk
  uint32_t reciprocal_;
};

// Code of column 16 * v + l of a uint4 step in the lowest bits of lane l, below others.
template <uint32_t v>
inline Integers nibbles(const uint8_t* codes) {
  return shift<4 * (v % 2)>(load_bytes(codes + v / 2 * 16));
}

template <uint32_t kBits, uint32_t v>
inline Integers integer_codes(const uint8_t* codes) {
  if constexpr (kBits == 2) return shift<2 * v>(load_bytes(codes));
  if constexpr (kBits == 3) {
    return or_where(shift<2 * v>(load_bytes(codes)) & 3, read<uint16_t>(codes + 16 + 2 * v), 4);
  }
  if constexpr (kBits == 4) return nibbles<v>(codes);
  if constexpr (kBits == 8) return load_bytes(codes + 16 * v);
}

// kGroupVectors: vectors of a step that surely share a scale.
template <uint32_t kBits, uint32_t kGroupVectors>
struct IntegerCodec {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr uint32_t kParts = 1;
  static constexpr size_t kStepBytes = 8 * kBits;
  static constexpr uint32_t kWindows = kGroupVectors == 1 ? 2 : 1;  // that hold all groups of a chunk
  using Chunk = StepChunk<IntegerCodec>;

  // The chunk's first group is entry kMatmulLanes, as windows may begin earlier.
  struct alignas(kMatmulAlignment) Scales {
    float scale[kMatmulLanes * (1 + kWindows)];
    float offset[kMatmulLanes * (1 + kWindows)];
  };

  IntegerCodec(uint32_t columns, uint32_t block)
      : groups(columns, block), code_bytes(steps_of(columns) * kStepBytes) {}

  class Place {
   public:
    Place(const IntegerCodec& codec, uint32_t column, uint32_t)
        : groups_(codec.groups, column), scales_(codec.code_bytes + size_t{2} * groups_.first()) {
      const uint32_t count = codec.groups.count;
      for (uint32_t wanted = groups_.first(); wanted < count && windows_ < kWindows; wanted += kMatmulLanes) {
        scale_windows_[windows_] = Window(codec.code_bytes, 2, count, wanted);
        zero_windows_[windows_] = Window(codec.code_bytes + size_t{2} * count, 1, count, wanted);
        ++windows_;
      }
    }

    const uint8_t* scales(const uint8_t* row) const { return row + scales_; }

    void load_scales(const uint8_t* row, Scales& output) const {
      for (uint32_t i = 0; i < (kWindows == 1 ? 1 : windows_); ++i) {
        const Floats scales = scale_windows_[i].template load<2>(row, load_f16);
        const Floats zeros = to_floats(zero_windows_[i].template load<1>(row, load_bytes));
        const uint32_t entry = (1 + i) * kMatmulLanes - scale_windows_[i].skipped();
        store(output.scale + entry, scales);
        store(output.offset + entry, broadcast(0.0f) - zeros * scales);
      }
    }

    template <uint32_t, class Sink>
    void decode(const uint8_t* codes, const uint8_t*, const Scales& scales, uint32_t step, Sink&& sink) const {
      unroll<kPartVectors / kGroupVectors>([&](auto part) {
        constexpr uint32_t kFirst = part * kGroupVectors;
        const uint32_t entry = kMatmulLanes + groups_.of(step * kPartVectors + kFirst);
        const Affine<kBits> weights(broadcast(scales.scale[entry]), broadcast(scales.offset[entry]));
        unroll<kGroupVectors>([&](auto i) {
          constexpr uint32_t v = kFirst + i;
          sink(v, weights(integer_codes<kBits, v>(codes)));
        });
      });
    }

   private:
    Groups groups_;
    size_t scales_;
    uint32_t windows_ = 0;
    Window scale_windows_[kWindows];
    Window zero_windows_[kWindows];
  };

  GroupLayout groups;
  size_t code_bytes;  // scales follow, then zeros
};

template <uint32_t kGroupVectors>
struct Float8Codec {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr uint32_t kParts = 1;
  static constexpr size_t kStepBytes = 64;
  using Scales = NoScales;
  using Chunk = StepChunk<Float8Codec>;

  Float8Codec(uint32_t columns, uint32_t block) : groups(columns, block), code_bytes(columns) {}

  class Place {
   public:
    Place(const Float8Codec& codec, uint32_t column, uint32_t)
        : groups_(codec.groups, column), scales_(codec.code_bytes + size_t{4} * groups_.first()) {}

    const uint8_t* scales(const uint8_t* row) const { return row + scales_; }

    void load_scales(const uint8_t*, NoScales&) const {}

    template <uint32_t, class Sink>
    void decode(const uint8_t* codes, const uint8_t* row, const NoScales&, uint32_t step, Sink&& sink) const {
      Floats weights[kPartVectors];
      decode_float8(codes, weights);
      unroll<kPartVectors / kGroupVectors>([&](auto part) {
        constexpr uint32_t kFirst = part * kGroupVectors;
        const size_t group = groups_.of(step * kPartVectors + kFirst);
        const Floats scale = broadcast(read<float>(row + scales_ + 4 * group));
        unroll<kGroupVectors>([&](auto i) {
          constexpr uint32_t v = kFirst + i;
          sink(v, weights[v] * scale);
        });
      });
    }

   private:
    Groups groups_;
    size_t scales_;
  };

  GroupLayout groups;
  size_t code_bytes;  // scales follow
};

// 2^(byte - 127) of sixteen bytes, NaN for 255. The least is not a normal number: its bits are not the byte's.
inline Floats powers_of_two(const uint8_t* bytes) {
  const Integers least = shift<-22>(load_bytes(kOnes));
  const Floats powers = bits_to_floats(maximum(shift<-23>(load_bytes(bytes)), least));
  return multiply_add(powers, broadcast(0.0f), powers);  // infinity to NaN
}

struct Mxfp4Codec {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr uint32_t kParts = 1;
  static constexpr size_t kStepBytes = 32;
  static constexpr uint32_t kBlock = 32;
  using Chunk = StepChunk<Mxfp4Codec>;

  // The chunk's first block is entry kMatmulLanes, as the window may begin earlier.
  struct alignas(kMatmulAlignment) Scales {
    float scale[2 * kMatmulLanes];
  };

  Mxfp4Codec(uint32_t columns, uint32_t)
      : code_bytes(steps_of(columns) * kStepBytes), blocks(columns / kBlock + (columns % kBlock != 0)) {}

  class Place {
   public:
    Place(const Mxfp4Codec& codec, uint32_t column, uint32_t)
        : window_(codec.code_bytes, 1, codec.blocks, column / kBlock), scales_(codec.code_bytes + column / kBlock) {}

    const uint8_t* scales(const uint8_t* row) const { return row + scales_; }

    void load_scales(const uint8_t* row, Scales& output) const {
      store(output.scale + kMatmulLanes, broadcast(0.0f));  // of blocks past the end
      store(output.scale + kMatmulLanes - window_.skipped(), window_.load<1>(row, powers_of_two));
    }

    template <uint32_t, class Sink>
    void decode(const uint8_t* codes, const uint8_t*, const Scales& scales, uint32_t step, Sink&& sink) const {
      unroll<2>([&](auto block) {
        constexpr uint32_t kFirst = 2 * block;
        const Floats levels = load(kFloat4) * broadcast(scales.scale[kMatmulLanes + 2 * step + block]);
        unroll<2>([&](auto i) {
          constexpr uint32_t v = kFirst + i;
          sink(v, look_up(levels, nibbles<v>(codes)));
        });
      });
    }

   private:
    Window window_;
    size_t scales_;
  };

  size_t code_bytes;  // scales follow
  uint32_t blocks;
};

struct Nf4Codec {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr uint32_t kParts = 1;
  static constexpr size_t kStepBytes = 32;
  using Scales = NoScales;
  using Chunk = StepChunk<Nf4Codec>;

  Nf4Codec(uint32_t columns, uint32_t) : code_bytes(steps_of(columns) * kStepBytes) {}

  class Place {
   public:
    Place(const Nf4Codec& codec, uint32_t column, uint32_t)
        : scales_(codec.code_bytes + column / kMatmulStep * sizeof(float)) {}

    const uint8_t* scales(const uint8_t* row) const { return row + scales_; }

    void load_scales(const uint8_t*, NoScales&) const {}

    template <uint32_t, class Sink>
    void decode(const uint8_t* codes, const uint8_t* row, const NoScales&, uint32_t step, Sink&& sink) const {
      const Floats levels = load(kNormalFloat4) * broadcast(read<float>(row + scales_ + step * sizeof(float)));
      unroll<kPartVectors>([&](auto v) { sink(v, look_up(levels, nibbles<v>(codes))); });
    }

   private:
    size_t scales_;
  };

  size_t code_bytes;  // scales follow
};

// Vectors of a step that surely share a scale.
constexpr uint32_t group_vectors(uint32_t columns, uint32_t block) {
  return block >= columns || block % kMatmulStep == 0 ? 4 : block % (kMatmulStep / 2) == 0 ? 2 : 1;
}

template <template <uint32_t> class Codec>
void multiply_grouped(const MatmulArgs& args) {
  switch (group_vectors(args.columns, args.block)) {
    case 4:
      return multiply<Codec<4>>(args);
    case 2:
      return multiply<Codec<2>>(args);
    default:
      return multiply<Codec<1>>(args);
  }
}

template <template <uint32_t> class Codec>
void dequantize_grouped(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  switch (group_vectors(columns, block)) {
    case 4:
      return dequantize<Codec<4>>(row, columns, block, output);
    case 2:
      return dequantize<Codec<2>>(row, columns, block, output);
    default:
      return dequantize<Codec<1>>(row, columns, block, output);
  }
}

template <uint32_t kGroupVectors>
using Integer2Codec = IntegerCodec<2, kGroupVectors>;
template <uint32_t kGroupVectors>
using Integer3Codec = IntegerCodec<3, kGroupVectors>;
template <uint32_t kGroupVectors>
using Integer4Codec = IntegerCodec<4, kGroupVectors>;
template <uint32_t kGroupVectors>
using Integer8Codec = IntegerCodec<8, kGroupVectors>;

}  // namespace

void matmul_u2(const MatmulArgs& args) { multiply_grouped<Integer2Codec>(args); }
void matmul_u3(const MatmulArgs& args) { multiply_grouped<Integer3Codec>(args); }
void matmul_u4(const MatmulArgs& args) { multiply_grouped<Integer4Codec>(args); }
void matmul_u8(const MatmulArgs& args) { multiply_grouped<Integer8Codec>(args); }
void matmul_fp8(const MatmulArgs& args) { multiply_grouped<Float8Codec>(args); }
void matmul_mxfp4(const MatmulArgs& args) { multiply<Mxfp4Codec>(args); }
void matmul_nf4(const MatmulArgs& args) { multiply<Nf4Codec>(args); }

void dequantize_row_u2(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize_grouped<Integer2Codec>(row, columns, block, output);
}
void dequantize_row_u3(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize_grouped<Integer3Codec>(row, columns, block, output);
}
void dequantize_row_u4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize_grouped<Integer4Codec>(row, columns, block, output);
}
void dequantize_row_u8(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize_grouped<Integer8Codec>(row, columns, block, output);
}
void dequantize_row_fp8(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize_grouped<Float8Codec>(row, columns, block, output);
}
void dequantize_row_mxfp4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Mxfp4Codec>(row, columns, block, output);
}
void dequantize_row_nf4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Nf4Codec>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
