// Codecs of ggml's blocks, as GGUF files hold them. Layouts: ggml-common.h of ggml; all numbers are little-endian.
#include "step_codec.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr uint32_t kBlockColumns = 32;
constexpr uint32_t kSuperBlock = 256;

// Formats of blocks of 32, kBytes each: two blocks are a step. Codec::decode_block(block, sink) decodes one.
template <class Codec, size_t kBytes>
struct SmallBlocks {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kMatmulStep;
  static constexpr uint32_t kParts = 1;
  static constexpr size_t kStepBytes = kMatmulStep / kBlockColumns * kBytes;
  using Scales = NoScales;
  using Chunk = StepChunk<Codec>;

  SmallBlocks(uint32_t columns, uint32_t) : code_bytes(columns / kBlockColumns * kBytes) {}

  struct Place {
    Place(const SmallBlocks&, uint32_t, uint32_t) {}

    const uint8_t* scales(const uint8_t* row) const { return row; }

    void load_scales(const uint8_t*, NoScales&) const {}

    template <uint32_t, class Sink>
    void decode(const uint8_t* codes, const uint8_t*, const NoScales&, uint32_t, Sink&& sink) const {
      unroll<2>([&](auto block) {
        Codec::decode_block(codes + block * kBytes, [&](uint32_t v, Floats weights) { sink(2 * block + v, weights); });
      });
    }
  };

  size_t code_bytes;
};

// Scale and offset of each group of columns of a super-block.
struct alignas(kMatmulAlignment) GroupScales {
  float scale[kMatmulLanes];
  float offset[kMatmulLanes];

  Floats value(Floats codes, uint32_t scale_index, uint32_t offset_index) const {
    return multiply_add(codes, broadcast(scale[scale_index]), broadcast(offset[offset_index]));
  }
};

// The weights of a part whose vectors each have a scale.
template <int kPart, class Sink>
inline void decode_bytes(Bytes codes, const GroupScales& groups, Sink&& sink) {
  unroll<4>([&](auto v) {
    constexpr uint32_t kGroup = 4 * kPart + v;
    sink(v, groups.value(to_floats<v>(codes), kGroup, kGroup));
  });
}

// Formats of super-blocks of 256 columns, kBytes each. Codec::load_block_scales(block, groups) decodes the scales of
// one, Codec::decode_part<kPart>(block, groups, sink) a quarter.
template <class Codec, size_t kBytes>
struct SuperBlocks {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kSuperBlock;
  static constexpr uint32_t kParts = kSuperBlock / kMatmulStep;
  static constexpr size_t kStepBytes = kBytes;
  using Chunk = StepChunk<Codec>;

  struct Scales {
    GroupScales blocks[kMatmulChunk / kSuperBlock];
  };

  SuperBlocks(uint32_t columns, uint32_t) : code_bytes(columns / kSuperBlock * kBytes) {}

  class Place {
   public:
    Place(const SuperBlocks&, uint32_t column, uint32_t width)
        : offset_(column / kSuperBlock * kBytes), blocks_(width / kSuperBlock) {}

    const uint8_t* scales(const uint8_t* row) const { return row + offset_; }

    void load_scales(const uint8_t* row, Scales& output) const {
      for (uint32_t i = 0; i < blocks_; ++i) Codec::load_block_scales(row + offset_ + i * kBytes, output.blocks[i]);
    }

    template <uint32_t kPart, class Sink>
    void decode(const uint8_t* codes, const uint8_t*, const Scales& scales, uint32_t step, Sink&& sink) const {
      Codec::template decode_part<kPart>(codes, scales.blocks[step], sink);
    }

   private:
    size_t offset_;
    uint32_t blocks_;
  };

  size_t code_bytes;
};

// float16 d, int8 codes[32]:  code * d
struct Q8_0Codec : SmallBlocks<Q8_0Codec, 34> {
  using SmallBlocks::SmallBlocks;

  template <class Sink>
  static void decode_block(const uint8_t* block, Sink&& sink) {
    const Floats scale = broadcast_half(block);
    unroll<2>([&](auto v) { sink(v, load_int8(block + 2 + 16 * v) * scale); });
  }
};

// Four or five bits: float16 d, float16 m if kMinimum, fifth bits of all columns in a uint32 if kBits is 5, and 16 bytes,
// byte l with columns l and 16 + l.  With a minimum code * d + m, else (code - 2^(kBits - 1)) * d.
template <uint32_t kBits, bool kMinimum>
struct NibbleCodec : SmallBlocks<NibbleCodec<kBits, kMinimum>, 16 + (kBits == 5 ? 4 : 0) + (kMinimum ? 4 : 2)> {
  using Base = SmallBlocks<NibbleCodec, 16 + (kBits == 5 ? 4 : 0) + (kMinimum ? 4 : 2)>;
  using Base::Base;

  template <class Sink>
  static void decode_block(const uint8_t* block, Sink&& sink) {
    const Floats scale = broadcast_half(block);
    const Affine<kBits> weights = kMinimum ? Affine<kBits>(scale, broadcast_half(block + 2))
                                           : Affine<kBits>::centered(scale, static_cast<float>(1 << (kBits - 1)));
    const uint8_t* const high_bits = block + (kMinimum ? 4 : 2);
    const Integers bytes = load_bytes(high_bits + (kBits == 5 ? 4 : 0));
    unroll<2>([&](auto v) {
      const Integers low = shift<4 * v>(bytes);
      if constexpr (kBits == 4) sink(v, weights(low));
      if constexpr (kBits == 5) sink(v, weights(or_where(low & 15, read<uint16_t>(high_bits + 2 * v), 16)));
    });
  }
};

// Four bits of scale and four of minimum for each 16 columns [16], two bits a code [64], float16 d and dmin:
// code * d * scale - dmin * minimum. Byte 32n + l of the codes has columns 128n + 32j + l at bits 2j.
struct Q2KCodec : SuperBlocks<Q2KCodec, 84> {
  using SuperBlocks::SuperBlocks;

  static void load_block_scales(const uint8_t* block, GroupScales& groups) {
    const Integers scales = load_bytes(block);
    store(groups.scale, to_floats(scales & 15) * broadcast_half(block + 80));
    store(groups.offset, broadcast(0.0f) - to_floats(shift<4>(scales)) * broadcast_half(block + 82));
  }

  template <int kPart, class Sink>
  static void decode_part(const uint8_t* block, const GroupScales& groups, Sink&& sink) {
    unroll<4>([&](auto v) {
      constexpr uint32_t kGroup = 4 * kPart + v;
      constexpr int kBit = kPart % 2 * 4 + v / 2 * 2;
      const Affine<2> weights(broadcast(groups.scale[kGroup]), broadcast(groups.offset[kGroup]));
      sink(v, weights(shift<kBit>(load_bytes(block + 16 + kPart / 2 * 32 + v % 2 * 16))));
    });
  }
};

// High bits of codes [32], low two bits [64] as of q2_k, six-bit scales [12], float16 d:
// (code - 4) * d * (scale - 32). Bit k of high byte l is that of column 32k + l.
// Scale i has its low bits in nibble i / 8 of byte i % 8, its high ones at bit 2 * (i / 4) of byte 8 + i % 4.
struct Q3KCodec : SuperBlocks<Q3KCodec, 110> {
  using SuperBlocks::SuperBlocks;

  static void load_block_scales(const uint8_t* block, GroupScales& groups) {
    const uint64_t low = read<uint64_t>(block + 96);
    const uint64_t high = read<uint32_t>(block + 104);
    constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f, kPairs = 0x0303030303030303;
    const uint64_t first = (low & kNibbles) | ((high | high << 30) & kPairs) << 4;
    const uint64_t second = (low >> 4 & kNibbles) | ((high >> 4 | high >> 6 << 32) & kPairs) << 4;
    const Floats scales = (to_floats(from_bytes(first, second)) - broadcast(32.0f)) * broadcast_half(block + 108);
    store(groups.scale, scales);
    store(groups.offset, scales * broadcast(-4.0f));
  }

  template <int kPart, class Sink>
  static void decode_part(const uint8_t* block, const GroupScales& groups, Sink&& sink) {
    constexpr int kLowBit = kPart % 2 * 4, kHighBit = kPart * 2;
    const Bytes low = shift_bytes<kLowBit, kLowBit + 2>(load_twice(block + 32 + kPart / 2 * 32));
    const Bytes high = shift_bytes<kHighBit - 2, kHighBit - 1>(load_twice(block));
    decode_bytes<kPart>(merge(low, 3, high, 4), groups, sink);
  }
};

// The scales of q4_k and q5_k: float16 d and dmin, then six bits of scale and of minimum for each of 8 groups in 12 bytes.
// Groups 0-3 have theirs in the low six bits of bytes 0-3 and 4-7; groups 4-7 have four bits in bytes 8-11, scales low
// and minimums high, and two in the high bits of bytes 0-3 and 4-7. Offsets become entries 8-15.
inline void load_k_scales(const uint8_t* block, GroupScales& groups) {
  const uint64_t both = read<uint64_t>(block + 4);
  const uint64_t rest = read<uint32_t>(block + 12);
  constexpr uint64_t kSix = 0x3f3f3f3f3f3f3f3f, kNibbles = 0x0f0f0f0f, kPairs = 0x03030303;
  const uint64_t first = both & kSix;  // scales 0-3, minimums 0-3
  const uint64_t scales = (rest & kNibbles) | (both >> 6 & kPairs) << 4;
  const uint64_t minimums = (rest >> 4 & kNibbles) | (both >> 38 & kPairs) << 4;
  const uint64_t all_scales = (first & 0xffffffff) | scales << 32;
  const uint64_t all_minimums = first >> 32 | minimums << 32;
  const Floats numbers = to_floats(from_bytes(all_scales, all_minimums));
  store(groups.scale, numbers * broadcast_half(block));
  store(groups.offset, broadcast(0.0f) - numbers * broadcast_half(block + 2));
}

constexpr LaneValues make_odd_high_nibbles() {
  LaneValues factors = {};
  for (uint32_t i = 0; i < kMatmulLanes; ++i) factors.values[i] = i % 2 == 0 ? 1.0f : kHighNibble;
  return factors;
}

constexpr LaneValues kOddHighNibbles = make_odd_high_nibbles();

// float16 d and dmin, scales [12], codes [128]: code * d * scale - dmin * minimum. Byte 32n + l of the codes has columns
// 64n + l and 64n + 32 + l.
struct Q4KCodec : SuperBlocks<Q4KCodec, 144> {
  using SuperBlocks::SuperBlocks;

  // Codes of groups with odd numbers are used as they lie, in high nibbles.
  static void load_block_scales(const uint8_t* block, GroupScales& groups) {
    load_k_scales(block, groups);
    store(groups.scale, load(groups.scale) * load(kOddHighNibbles.values));
  }

  template <int kPart, class Sink>
  static void decode_part(const uint8_t* block, const GroupScales& groups, Sink&& sink) {
    constexpr uint32_t kLow = 2 * kPart, kHigh = kLow + 1;
    const uint8_t* const codes = block + 16 + kPart * 32;
    const Affine<4> low(broadcast(groups.scale[kLow]), broadcast(groups.offset[8 + kLow]));
    unroll<2>([&](auto i) { sink(i, low(load_bytes(codes + i * 16))); });
    unroll<2>([&](auto i) {
      sink(2 + i, high_nibbles(load_bytes(codes + i * 16), broadcast(groups.scale[kHigh]),
                               broadcast(groups.offset[8 + kHigh])));
    });
  }
};

// As q4_k, with the codes' fifth bits [32] before the codes: bit k of byte l is that of column 32k + l.
struct Q5KCodec : SuperBlocks<Q5KCodec, 176> {
  using SuperBlocks::SuperBlocks;

  static void load_block_scales(const uint8_t* block, GroupScales& groups) { load_k_scales(block, groups); }

  template <int kPart, class Sink>
  static void decode_part(const uint8_t* block, const GroupScales& groups, Sink&& sink) {
    const Bytes low = shift_bytes<0, 4>(load_twice(block + 48 + kPart * 32));
    const Bytes high = shift_bytes<2 * kPart - 4, 2 * kPart - 3>(load_twice(block + 16));
    const Bytes codes = merge(low, 15, high, 16);
    unroll<4>([&](auto v) {
      constexpr uint32_t kGroup = 2 * kPart + v / 2;
      sink(v, groups.value(to_floats<v>(codes), kGroup, 8 + kGroup));
    });
  }
};

// Low four bits of codes [128], high two [64], int8 scales for each 16 columns [16], float16 d: (code - 32) * d * scale.
// Byte 64n + l of the low bits has columns 128n + l and 128n + 64 + l; byte 32n + l of the high ones has columns
// 128n + 32j + l at bits 2j.
struct Q6KCodec : SuperBlocks<Q6KCodec, 210> {
  using SuperBlocks::SuperBlocks;

  static void load_block_scales(const uint8_t* block, GroupScales& groups) {
    const Floats scales = load_int8(block + 192) * broadcast_half(block + 208);
    store(groups.scale, scales);
    store(groups.offset, scales * broadcast(-32.0f));
  }

  template <int kPart, class Sink>
  static void decode_part(const uint8_t* block, const GroupScales& groups, Sink&& sink) {
    constexpr int kLowBit = kPart % 2 * 4;
    const Bytes low = shift_bytes<kLowBit, kLowBit>(load_64(block + kPart / 2 * 64));
    const Bytes high = shift_bytes<kLowBit - 4, kLowBit - 2>(load_twice(block + 128 + kPart / 2 * 32));
    decode_bytes<kPart>(merge(low, 15, high, 48), groups, sink);
  }
};

using Q4_0Codec = NibbleCodec<4, false>;
using Q4_1Codec = NibbleCodec<4, true>;
using Q5_0Codec = NibbleCodec<5, false>;
using Q5_1Codec = NibbleCodec<5, true>;

}  // namespace

#define LAYERSTREAM_DEFINE_GGML(name, Codec)                                                              \
  void matmul_##name(const MatmulArgs& args) { multiply<Codec>(args); }                                   \
  void dequantize_row_##name(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {       \
    dequantize<Codec>(row, columns, block, output);                                                       \
  }

LAYERSTREAM_DEFINE_GGML(q8_0, Q8_0Codec)
LAYERSTREAM_DEFINE_GGML(q4_0, Q4_0Codec)
LAYERSTREAM_DEFINE_GGML(q4_1, Q4_1Codec)
LAYERSTREAM_DEFINE_GGML(q5_0, Q5_0Codec)
LAYERSTREAM_DEFINE_GGML(q5_1, Q5_1Codec)
LAYERSTREAM_DEFINE_GGML(q2_k, Q2KCodec)
LAYERSTREAM_DEFINE_GGML(q3_k, Q3KCodec)
LAYERSTREAM_DEFINE_GGML(q4_k, Q4KCodec)
LAYERSTREAM_DEFINE_GGML(q5_k, Q5KCodec)
LAYERSTREAM_DEFINE_GGML(q6_k, Q6KCodec)

#undef LAYERSTREAM_DEFINE_GGML

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
