// The codec of bf16_window. Included by each instruction set's window file after its window_cursor.h, or the generic one.
#include "step_codec.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

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

  using Scales = WindowCursor;
  class Chunk;

  WindowCodec(uint32_t columns, uint32_t block)
      : columns(columns), capacity(block), data(block + (columns + kStep - 1) / kStep * size_t{kWindowHeaderBytes}) {}

  uint32_t columns, capacity;
  size_t data;  // where the weights begin
};

class WindowCodec::Chunk {
 public:
  Chunk(const WindowCodec& codec, uint32_t column, uint32_t width)
      : capacity_(codec.capacity),
        width_(width),
        header_(codec.capacity + size_t{column} / kStep * kWindowHeaderBytes),
        fetched_(codec.data * column / codec.columns),
        data_(codec.data + size_t{column} / kStep * kStepBytes) {}

  uint32_t steps() const { return width_ / kStep; }

  // Escapes and headers lie before the weights: each window fetches a part of them.
  const uint8_t* scales(const uint8_t* row) const { return row + fetched_; }

  void load_scales(const uint8_t* row, Scales& output) const {
    const uint32_t begin = read<uint16_t>(row + header_ + 1);
    output = WindowCursor(row + smaller(begin, capacity_), row[header_]);
  }

  const uint8_t* step_codes(const uint8_t* row, uint32_t) const { return row + data_; }

  void pad_last_step(const uint8_t* row, uint8_t* output) const {
    const size_t parts = this->parts();
    const uint8_t* const source = row + data_;
    std::memset(output, 0, kStepBytes);
    std::memcpy(output, source, parts * kPlaneBytes);
    std::memcpy(output + kParts * kPlaneBytes, source + parts * kPlaneBytes, parts * kCodeBytes);
  }

  template <class Sink>
  void decode_step(const uint8_t* codes, const uint8_t*, const Scales& scales, uint32_t, Sink&& sink) const {
    WindowCursor cursor = scales;
    for (uint32_t part = 0; part < parts(); ++part) {
      Floats weights[kPartVectors];
      decode_part(cursor, codes, part, weights);
      for (uint32_t v = 0; v < kPartVectors; ++v) sink(part * kPartVectors + v, weights[v]);
    }
  }

  void multiply_step(const uint8_t* const* codes, const uint8_t* const*, const Scales* scales, uint32_t,
                     const float* input, Floats* accumulators) const {
    WindowCursor cursors[kRows];
    for (uint32_t r = 0; r < kRows; ++r) cursors[r] = scales[r];
    for (uint32_t part = 0; part < parts(); ++part) {
      for (uint32_t r = 0; r < kRows; ++r) {
        Floats weights[kPartVectors];
        decode_part(cursors[r], codes[r], part, weights);
        for (uint32_t v = 0; v < kPartVectors; ++v) {
          const Floats x = load(input + (part * kPartVectors + v) * kMatmulLanes);
          accumulators[r] = multiply_add(weights[v], x, accumulators[r]);
        }
      }
    }
  }

 private:
  // Those with columns: a cursor may not read for others.
  uint32_t parts() const { return (width_ + kMatmulStep - 1) / kMatmulStep; }

  void decode_part(WindowCursor& cursor, const uint8_t* codes, uint32_t part, Floats* weights) const {
    const uint8_t* const plane = codes + kParts * kPlaneBytes;
    cursor.decode(codes + part * kPlaneBytes, plane + part * kCodeBytes, smaller(width_ - part * kMatmulStep, kMatmulStep),
                  weights);
  }

  uint32_t capacity_;
  uint32_t width_;
  size_t header_;
  size_t fetched_;
  size_t data_;
};

}  // namespace

void matmul_bf16_window(const MatmulArgs& args) { multiply<WindowCodec>(args); }

void dequantize_row_bf16_window(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<WindowCodec>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
