// One token's products in Precision::kFast: activations become int16 or pairs of bfloat16, so that a few instructions do
// for 64 bytes of weights. Which formats there are, and how each is prepared and multiplied.
#if defined(__x86_64__) || defined(_M_X64)

#include "products.h"
#include "vector_nibbles.h"
#include "vector_plain.h"
#include "vector_window.h"

namespace layerstream::cpu::vnni {
namespace {

constexpr bool is_bfloat(Format format) { return format == Format::kBF16 || format == Format::kBF16Window; }

bool supports(Format format, uint32_t block, uint32_t columns) {
  if (format == Format::kU4) return IntegerNibbles::supports(block, columns);
  return is_bfloat(format) || format == Format::kQ8 || format == Format::kQ4 || format == Format::kNf4;
}

// Bytes of one prepared token.
size_t stride(Format format, uint32_t block, uint32_t columns) {
  if (is_bfloat(format)) return token_bytes<BfloatPair>(divide_up(columns, 32));
  if (format == Format::kQ8 && block == 32) return token_bytes<IntegerChunk<32>>(divide_up(columns, 32 * kGroups));
  return token_bytes<IntegerChunk<64>>(divide_up(columns, 64 * kGroups));
}

size_t prepared_bytes(Format format, uint32_t block, uint32_t columns, uint32_t tokens) {
  return tokens * stride(format, block, columns);
}

size_t scratch_bytes(Format, uint32_t, uint32_t, uint32_t) { return 0; }

void prepare_token(Format format, uint32_t block, const float* input, uint32_t columns, uint8_t* prepared) {
  if (is_bfloat(format)) {
    prepare_bfloat(input, columns, prepared);
  } else if (format == Format::kQ8 && block == 32) {
    prepare_integers<32>(input, columns, kByteRule, prepared);
  } else if (format == Format::kQ8) {
    prepare_integers<64>(input, columns, kByteRule, prepared);
  } else if (format == Format::kNf4) {
    prepare_integers<64>(input, columns, kNormalFloatRule, prepared);
  } else if (format == Format::kU4) {
    prepare_integers<64>(input, columns, kCodeRule, prepared);
  } else {
    prepare_integers<64>(input, columns, kLaneRule, prepared);
  }
}

void prepare(Format format, const MatmulArgs& args, uint32_t token_begin, uint32_t token_end, uint8_t* prepared) {
  const size_t bytes = stride(format, args.block, args.columns);
  for (uint32_t token = token_begin; token < token_end; ++token) {
    prepare_token(format, args.block, args.input + token * args.input_stride, args.columns, prepared + token * bytes);
  }
}

void multiply(Format format, const MatmulArgs& args, const uint8_t* prepared) {
  const size_t bytes = stride(format, args.block, args.columns);
  if (format == Format::kBF16) {
    multiply_rows(args, prepared, bytes, BfloatDot{args.columns});
  } else if (format == Format::kBF16Window) {
    multiply_rows(args, prepared, bytes, WindowDot(args.columns, args.block));
  } else if (format == Format::kQ8 && args.block == 32) {
    multiply_rows(args, prepared, bytes, ByteDot<32>(args.columns, args.block));
  } else if (format == Format::kQ8) {
    multiply_rows(args, prepared, bytes, ByteDot<64>(args.columns, args.block));
  } else if (format == Format::kNf4) {
    multiply_rows(args, prepared, bytes, NibbleDot<NormalFloatNibbles>(args.columns, args.block));
  } else if (format == Format::kU4) {
    multiply_rows(args, prepared, bytes, NibbleDot<IntegerNibbles>(args.columns, args.block));
  } else {
    multiply_rows(args, prepared, bytes, NibbleDot<LaneNibbles>(args.columns, args.block));
  }
}

}  // namespace

extern const FastKernels kVectorKernels = {supports, prepared_bytes, prepare, scratch_bytes, multiply, 0, 16};

}  // namespace layerstream::cpu::vnni

#endif
