// The codec of bf16_window. Included by each instruction set's window file after its decode.h, which supplies
//   uint64_t window_exponents(const uint8_t* codes, uint8_t least, uint8_t exponents[64])
//     the exponents of a step's 64 places, escapes still to be filled in; returns the places of these. May read 8 bytes
//     before the codes.
#if defined(_MSC_VER)
#include <intrin.h>
#endif

#include "step_codec.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

inline uint32_t lowest_bit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long index;
  _BitScanForward64(&index, bits);
  return index;
#else
  return static_cast<uint32_t>(__builtin_ctzll(bits));
#endif
}

// Rows of any bytes keep every read within the row: the first escape of a window lies within the capacity, a window has
// no more than its columns, and as many bytes follow the capacity in every row.
struct WindowCodec {
  static constexpr uint32_t kRows = kQuantizedRows;
  static constexpr uint32_t kStep = kWindowColumns;
  static constexpr uint32_t kParts = kStep / kMatmulStep;
  static constexpr size_t kPlaneBytes = kMatmulStep;  // of a part
  static constexpr size_t kCodeBytes = 3 * kMatmulStep / 8;
  static constexpr size_t kStepBytes = kParts * (kPlaneBytes + kCodeBytes);
  static_assert(kStep == kMatmulChunk);

  struct Scales {
    const uint8_t* escapes;
    uint8_t least;
  };
  class Chunk;

  WindowCodec(uint32_t columns, uint32_t block)
      : capacity(block), data(block + (columns + kStep - 1) / kStep * size_t{kWindowHeaderBytes}) {}

  uint32_t capacity;
  size_t data;  // where the weights begin
};

class WindowCodec::Chunk {
 public:
  Chunk(const WindowCodec& codec, uint32_t column, uint32_t width)
      : capacity_(codec.capacity),
        width_(width),
        header_(codec.capacity + size_t{column} / kStep * kWindowHeaderBytes),
        data_(codec.data + size_t{column} / kStep * kStepBytes) {}

  uint32_t steps() const { return width_ / kStep; }

  const uint8_t* scales(const uint8_t* row) const { return row + header_; }

  void load_scales(const uint8_t* row, Scales& output) const {
    const uint32_t begin = read<uint16_t>(row + header_ + 1);
    output.escapes = row + smaller(begin, capacity_);
    output.least = row[header_];
  }

  const uint8_t* step_codes(const uint8_t* row, uint32_t) const { return row + data_; }

  void pad_last_step(const uint8_t* row, uint8_t* output) const {
    const size_t parts = (width_ + kMatmulStep - 1) / kMatmulStep;
    const uint8_t* const source = row + data_;
    std::memset(output, 0, kStepBytes);
    std::memcpy(output, source, parts * kPlaneBytes);
    std::memcpy(output + kParts * kPlaneBytes, source + parts * kPlaneBytes, parts * kCodeBytes);
  }

  template <class Sink>
  void decode_step(const uint8_t* codes, const uint8_t*, const Scales& scales, uint32_t, Sink&& sink) const {
    const uint8_t* escapes = scales.escapes;
    for (uint32_t part = 0; part < kParts; ++part) {
      Floats weights[kPartVectors];
      decode_part(codes, part, scales.least, escapes, weights);
      for (uint32_t v = 0; v < kPartVectors; ++v) sink(part * kPartVectors + v, weights[v]);
    }
  }

  void multiply_step(const uint8_t* const* codes, const uint8_t* const*, const Scales* scales, uint32_t,
                     const float* input, Floats* accumulators) const {
    const uint8_t* escapes[kRows];
    for (uint32_t r = 0; r < kRows; ++r) escapes[r] = scales[r].escapes;
    for (uint32_t part = 0; part < kParts; ++part) {
      for (uint32_t r = 0; r < kRows; ++r) {
        Floats weights[kPartVectors];
        decode_part(codes[r], part, scales[r].least, escapes[r], weights);
        for (uint32_t v = 0; v < kPartVectors; ++v) {
          const Floats x = load(input + (part * kPartVectors + v) * kMatmulLanes);
          accumulators[r] = multiply_add(weights[v], x, accumulators[r]);
        }
      }
    }
  }

 private:
  // Sixteen columns are two runs of eight places; those of the second half of a step lie behind those of the first.
  static constexpr size_t run_of(uint32_t v) { return 32 * size_t{v % 2} + 8 * size_t{v / 2}; }

  static Integers columns_of(const uint8_t* places, uint32_t v) {
    return from_bytes(read<uint64_t>(places + run_of(v)), read<uint64_t>(places + run_of(v) + 16));
  }

  LAYERSTREAM_NOINLINE void clear_from(uint32_t column, uint8_t* exponents) const {
    for (; column < kMatmulStep; ++column) exponents[run_of(column / 16) + 16 * (column / 8 % 2) + column % 8] = 0;
  }

  void decode_part(const uint8_t* codes, uint32_t part, uint8_t least, const uint8_t*& escapes, Floats* weights) const {
    const uint8_t* const plane = codes + part * kPlaneBytes;
    alignas(kMatmulAlignment) uint8_t exponents[kMatmulStep];
    uint64_t escaped = window_exponents(codes + kParts * kPlaneBytes + part * kCodeBytes, least, exponents);
    for (; escaped != 0; escaped &= escaped - 1) exponents[lowest_bit(escaped)] = *escapes++;
    const uint32_t first = part * kMatmulStep;
    if (width_ < first + kMatmulStep) clear_from(width_ > first ? width_ - first : 0, exponents);
    for (uint32_t v = 0; v < kPartVectors; ++v) {
      const Integers rest = columns_of(plane, v);
      const Integers bits = shift<-23>(columns_of(exponents, v)) | shift<-15>(rest & 254);
      weights[v] = bits_to_floats(bits | shift<-31>(rest));
    }
  }

  uint32_t capacity_;
  uint32_t width_;
  size_t header_;
  size_t data_;
};

}  // namespace

void matmul_bf16_window(const MatmulArgs& args) { multiply<WindowCodec>(args); }

void dequantize_row_bf16_window(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<WindowCodec>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
