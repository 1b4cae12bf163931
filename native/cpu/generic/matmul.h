// The matrix product, written once over sixteen lanes for all formats. Included by each instruction set's matmul file
// after its simd.h.
//
// The order of a sum: columns are taken in chunks of 512. Within a chunk, lane l of one accumulator adds columns l,
// l + 16, ... in order; the lanes are then folded in a fixed tree, and the chunk's sum is added to the running sum of
// its (row, token). Both ways through the product keep that order:
//
//   one token      kVectorRows rows side by side, weights decoded in registers and used once
//   more tokens    a panel of kPanelRows rows is decoded once a chunk and multiplied with tiles of kTileTokens
//                  tokens; inputs are packed so that a chunk of up to 96 tokens stays in the second-level cache
//
// The including file also supplies, in its anonymous namespace:
//   kVectorRows, kPanelRows, kTileTokens
//   void prefetch(const uint8_t* address)
//   Floats load_int8(const uint8_t* source)                          16 codes as floats
//   void levels(const uint8_t* codes, float scale, Floats output[4])  a q4 block, in column order, times its scale
#include <cstddef>

#include "../functions.h"
#include "../matmul_blocking.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr uint32_t kScales = kMatmulLanes;  // the most that a chunk needs: q8 blocks have at least 32 columns
constexpr uint32_t kVectors = kMatmulStep / kMatmulLanes;

static_assert(kPanelRows <= kMatmulMaximumPanel && kMatmulRowBlock % kPanelRows == 0);

constexpr bool is_quantized(Format format) { return format == Format::kQ8 || format == Format::kQ4; }

// Bytes of the codes of kMatmulStep columns.
constexpr size_t step_bytes(Format format) {
  return format == Format::kF32 ? 256 : format == Format::kQ8 ? 64 : format == Format::kQ4 ? 32 : 128;
}

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

constexpr uint32_t whole_steps(uint32_t columns) { return (columns + kMatmulStep - 1) / kMatmulStep * kMatmulStep; }

// 64 weights in column order; `low` and `high` are the scales of columns 0-31 and 32-63.
template <Format kFormat>
inline void decode(const uint8_t* codes, float low, float high, Floats* output) {
  if constexpr (kFormat == Format::kQ4) {
    levels(codes, low, output);
  } else {
    for (uint32_t v = 0; v < kVectors; ++v) {
      const uint8_t* source = codes + v * (step_bytes(kFormat) / kVectors);
      if constexpr (kFormat == Format::kF32) output[v] = load_f32(source);
      if constexpr (kFormat == Format::kF16) output[v] = load_f16(source);
      if constexpr (kFormat == Format::kBF16) output[v] = load_bf16(source);
      if constexpr (kFormat == Format::kQ8) output[v] = load_int8(source) * broadcast(v < kVectors / 2 ? low : high);
    }
  }
}

// Where codes and scales lie in every row.
template <Format kFormat>
struct Layout {
  Layout(uint32_t columns, uint32_t block) {
    if constexpr (is_quantized(kFormat)) {
      while ((2u << block_shift) <= block) ++block_shift;
      scales = (columns + block - 1) / block;
      code_bytes = size_t{scales} * block * step_bytes(kFormat) / kMatmulStep;
    } else {
      code_bytes = size_t{columns} * step_bytes(kFormat) / kMatmulStep;
    }
  }

  size_t code_bytes;  // scales follow
  uint32_t scales = 0;
  uint32_t block_shift = 0;  // log2 of the columns that share a scale
};

// Where a chunk lies in every row. A row's scales of the chunk are decoded sixteen at a time: those from
// `first_scale` on, which is low enough not to read past the row's end.
template <Format kFormat>
class Chunk {
 public:
  Chunk(const Layout<kFormat>& layout, uint32_t column, uint32_t width)
      : code_offset_(size_t{column} / kMatmulStep * step_bytes(kFormat)),
        left_(layout.code_bytes - code_offset_),
        block_shift_(layout.block_shift),
        steps_(width / kMatmulStep) {
    if constexpr (is_quantized(kFormat)) {
      const uint32_t wanted = column >> block_shift_;
      const uint32_t last = layout.scales < kScales ? 0 : layout.scales - kScales;
      const uint32_t first = smaller(wanted, last);
      scale_offset_ = layout.code_bytes + size_t{2} * first;
      scales_ = smaller(layout.scales - first, kScales);
      skipped_ = wanted - first;
    }
  }

  uint32_t steps() const { return steps_; }  // whole ones
  const uint8_t* codes(const uint8_t* row) const { return row + code_offset_; }

  // `output` has kScales + 1 floats.
  void load_scales(const uint8_t* row, float* output) const {
    if constexpr (is_quantized(kFormat)) {
      Floats scales;
      if (scales_ == kScales) {
        scales = load_f16(row + scale_offset_);
      } else {
        uint8_t padded[2 * kScales] = {};
        std::memcpy(padded, row + scale_offset_, 2 * scales_);
        scales = load_f16(padded);
      }
      store(output, kFormat == Format::kQ8 ? scales / broadcast(127.0f) : scales);
      output[kScales] = 0.0f;  // of columns past the end
    }
  }

  // The 64 weights of a step.
  void weights(const uint8_t* codes, const float* scales, uint32_t step, Floats* output) const {
    decode_step(codes + size_t{step} * step_bytes(kFormat), scales, step, output);
  }

  // The same of the last step of a row, of which some columns may not exist: their codes read as zero.
  void last_weights(const uint8_t* codes, const float* scales, Floats* output) const {
    uint8_t padded[step_bytes(kFormat)] = {};
    const size_t start = size_t{steps_} * step_bytes(kFormat);
    std::memcpy(padded, codes + start, left_ - start < sizeof padded ? left_ - start : sizeof padded);
    decode_step(padded, scales, steps_, output);
  }

 private:
  void decode_step(const uint8_t* codes, const float* scales, uint32_t step, Floats* output) const {
    if constexpr (is_quantized(kFormat)) {
      const uint32_t column = step * kMatmulStep;
      const float* const first = scales + skipped_;
      decode<kFormat>(codes, first[column >> block_shift_], first[(column + kMatmulStep / 2) >> block_shift_], output);
    } else {
      decode<kFormat>(codes, 1.0f, 1.0f, output);
    }
  }

  size_t code_offset_;
  size_t left_;  // bytes of codes from there
  uint32_t block_shift_;
  uint32_t steps_;
  size_t scale_offset_ = 0;
  uint32_t scales_ = 0;
  uint32_t skipped_ = 0;
};

void write(const MatmulArgs& args, uint32_t token, uint32_t row, const float* sums, uint32_t count) {
  float* output = args.output + token * args.output_stride + row;
  for (uint32_t i = 0; i < count; ++i) {
    const float value = args.bias == nullptr ? sums[i] : sums[i] + args.bias[row + i];
    output[i] = args.accumulate ? output[i] + value : value;
  }
}

template <Format kFormat>
void multiply_vector(const MatmulArgs& args) {
  constexpr size_t kPrefetchBytes = 1024;
  const Layout<kFormat> layout(args.columns, args.block);
  const uint32_t tail = args.columns % kMatmulStep;
  float last_input[kMatmulStep] = {};
  std::memcpy(last_input, args.input + (args.columns - tail), tail * sizeof(float));

  for (uint32_t row = 0; row < args.rows; row += kVectorRows) {
    const uint32_t count = smaller(kVectorRows, args.rows - row);
    float sums[kVectorRows] = {};
    for (uint32_t column = 0; column < args.columns; column += kMatmulChunk) {
      const uint32_t width = smaller(kMatmulChunk, args.columns - column);
      const Chunk<kFormat> chunk(layout, column, width);
      const uint8_t* codes[kVectorRows];
      alignas(kMatmulAlignment) float scales[kVectorRows][2 * kScales];
      Floats accumulators[kVectorRows];
      for (uint32_t r = 0; r < kVectorRows; ++r) {
        // Where rows run out, the last one stands in and its extra results are dropped.
        const uint8_t* const weight = args.weight + (row + smaller(r, count - 1)) * args.row_bytes;
        codes[r] = chunk.codes(weight);
        chunk.load_scales(weight, scales[r]);
        accumulators[r] = broadcast(0.0f);
      }
      const float* input = args.input + column;
      for (uint32_t step = 0; step < chunk.steps(); ++step, input += kMatmulStep) {
        for (uint32_t r = 0; r < kVectorRows; ++r) {
          for (size_t line = 0; line < step_bytes(kFormat); line += 64) {
            prefetch(codes[r] + step * step_bytes(kFormat) + kPrefetchBytes + line);
          }
          Floats weights[kVectors];
          chunk.weights(codes[r], scales[r], step, weights);
          for (uint32_t v = 0; v < kVectors; ++v) {
            accumulators[r] = multiply_add(weights[v], load(input + v * kMatmulLanes), accumulators[r]);
          }
        }
      }
      if (width % kMatmulStep != 0) {
        for (uint32_t r = 0; r < kVectorRows; ++r) {
          Floats weights[kVectors];
          chunk.last_weights(codes[r], scales[r], weights);
          for (uint32_t v = 0; v < kVectors; ++v) {
            accumulators[r] = multiply_add(weights[v], load(last_input + v * kMatmulLanes), accumulators[r]);
          }
        }
      }
      for (uint32_t r = 0; r < kVectorRows; ++r) sums[r] += sum(accumulators[r]);
    }
    write(args, 0, row, sums, count);
  }
}

// sums[t * kMatmulRowBlock + r] += panel row r times token t, over `vectors` vectors of columns.
template <uint32_t kTokens>
void multiply_tile(const float* panel, const float* inputs, uint32_t vectors, float* sums) {
  Floats accumulators[kTokens][kPanelRows];
  for (uint32_t t = 0; t < kTokens; ++t) {
    for (uint32_t r = 0; r < kPanelRows; ++r) accumulators[t][r] = broadcast(0.0f);
  }
  for (uint32_t v = 0; v < vectors; ++v) {
    Floats x[kTokens];
    for (uint32_t t = 0; t < kTokens; ++t) x[t] = load(inputs + t * kMatmulLanes);
    for (uint32_t r = 0; r < kPanelRows; ++r) {
      const Floats weight = load(panel + r * kMatmulLanes);
      for (uint32_t t = 0; t < kTokens; ++t) accumulators[t][r] = multiply_add(weight, x[t], accumulators[t][r]);
    }
    panel += kPanelRows * kMatmulLanes;
    inputs += kTokens * kMatmulLanes;
  }
  for (uint32_t t = 0; t < kTokens; ++t) {
    for (uint32_t r = 0; r < kPanelRows; ++r) sums[t * kMatmulRowBlock + r] += sum(accumulators[t][r]);
  }
}

template <uint32_t kTokens = kTileTokens>
void multiply_tile(uint32_t tokens, const float* panel, const float* inputs, uint32_t vectors, float* sums) {
  if (tokens == kTokens) return multiply_tile<kTokens>(panel, inputs, vectors, sums);
  if constexpr (kTokens > 1) multiply_tile<kTokens - 1>(tokens, panel, inputs, vectors, sums);
}

// Decodes `count` rows of a chunk; the vectors of all rows at one place lie side by side. Missing rows stay as they
// are: their results are dropped.
template <Format kFormat>
void decode_panel(const MatmulArgs& args, const Layout<kFormat>& layout, uint32_t row, uint32_t count, uint32_t column,
                  uint32_t width, float* panel) {
  const Chunk<kFormat> chunk(layout, column, width);
  for (uint32_t r = 0; r < count; ++r) {
    const uint8_t* const weight = args.weight + (row + r) * args.row_bytes;
    alignas(kMatmulAlignment) float scales[2 * kScales];
    chunk.load_scales(weight, scales);
    float* output = panel + r * kMatmulLanes;
    Floats weights[kVectors];
    for (uint32_t step = 0; step * kMatmulStep < width; ++step) {
      if (step < chunk.steps()) {
        chunk.weights(chunk.codes(weight), scales, step, weights);
      } else {
        chunk.last_weights(chunk.codes(weight), scales, weights);
      }
      for (uint32_t v = 0; v < kVectors; ++v, output += kPanelRows * kMatmulLanes) store(output, weights[v]);
    }
  }
}

// Packs a chunk of the inputs of `tokens` tokens in tiles; the vectors of a tile's tokens at one place lie side by
// side. Columns past the end are zero.
void pack_inputs(const float* input, size_t stride, uint32_t tokens, uint32_t width, float* packed) {
  const uint32_t padded = whole_steps(width);
  for (uint32_t first = 0; first < tokens; first += kTileTokens) {
    const uint32_t count = smaller(kTileTokens, tokens - first);
    for (uint32_t t = 0; t < count; ++t) {
      const float* source = input + (first + t) * stride;
      float* output = packed + size_t{first} * padded + t * kMatmulLanes;
      for (uint32_t c = 0; c < padded; c += kMatmulLanes, output += count * kMatmulLanes) {
        store(output, c + kMatmulLanes <= width ? load(source + c) : load(source + c, c < width ? width - c : 0));
      }
    }
  }
}

template <Format kFormat>
void multiply_matrix(const MatmulArgs& args) {
  const Layout<kFormat> layout(args.columns, args.block);
  const size_t misaligned = reinterpret_cast<uintptr_t>(args.scratch) % kMatmulAlignment / sizeof(float);
  const uint32_t token_block = smaller(kMatmulTokenBlock, args.tokens);
  float* const panel = args.scratch + (misaligned == 0 ? 0 : kMatmulAlignment / sizeof(float) - misaligned);
  float* const packed = panel + kMatmulMaximumPanel * kMatmulChunk;
  float* const sums = packed + size_t{token_block} * kMatmulChunk;
  std::memset(panel, 0, kMatmulMaximumPanel * kMatmulChunk * sizeof(float));

  for (uint32_t token = 0; token < args.tokens; token += token_block) {
    const uint32_t tokens = smaller(token_block, args.tokens - token);
    for (uint32_t first_row = 0; first_row < args.rows; first_row += kMatmulRowBlock) {
      const uint32_t rows = smaller(kMatmulRowBlock, args.rows - first_row);
      std::memset(sums, 0, size_t{tokens} * kMatmulRowBlock * sizeof(float));
      for (uint32_t column = 0; column < args.columns; column += kMatmulChunk) {
        const uint32_t width = smaller(kMatmulChunk, args.columns - column);
        const uint32_t padded = whole_steps(width);
        pack_inputs(args.input + token * args.input_stride + column, args.input_stride, tokens, width, packed);
        for (uint32_t r = 0; r < rows; r += kPanelRows) {
          decode_panel<kFormat>(args, layout, first_row + r, smaller(kPanelRows, rows - r), column, width, panel);
          for (uint32_t t = 0; t < tokens; t += kTileTokens) {
            multiply_tile(smaller(kTileTokens, tokens - t), panel, packed + size_t{t} * padded, padded / kMatmulLanes,
                          sums + size_t{t} * kMatmulRowBlock + r);
          }
        }
      }
      for (uint32_t t = 0; t < tokens; ++t) write(args, token + t, first_row, sums + size_t{t} * kMatmulRowBlock, rows);
    }
  }
}

template <Format kFormat>
void multiply(const MatmulArgs& args) {
  if (args.tokens == 1) {
    multiply_vector<kFormat>(args);
  } else if (args.tokens > 1) {
    multiply_matrix<kFormat>(args);
  }
}

template <Format kFormat>
void dequantize(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  const Layout<kFormat> layout(columns, block);
  for (uint32_t column = 0; column < columns; column += kMatmulChunk) {
    const uint32_t width = smaller(kMatmulChunk, columns - column);
    const Chunk<kFormat> chunk(layout, column, width);
    alignas(kMatmulAlignment) float scales[2 * kScales];
    chunk.load_scales(row, scales);
    Floats weights[kVectors];
    for (uint32_t step = 0; step * kMatmulStep < width; ++step) {
      const uint32_t left = width - step * kMatmulStep;
      if (left >= kMatmulStep) {
        chunk.weights(chunk.codes(row), scales, step, weights);
      } else {
        chunk.last_weights(chunk.codes(row), scales, weights);
      }
      for (uint32_t v = 0; v < kVectors && v * kMatmulLanes < left; ++v, output += kMatmulLanes) {
        store(output, weights[v], smaller(kMatmulLanes, left - v * kMatmulLanes));
      }
    }
  }
}

}  // namespace

void matmul_f32(const MatmulArgs& args) { multiply<Format::kF32>(args); }
void matmul_f16(const MatmulArgs& args) { multiply<Format::kF16>(args); }
void matmul_bf16(const MatmulArgs& args) { multiply<Format::kBF16>(args); }
void matmul_q8(const MatmulArgs& args) { multiply<Format::kQ8>(args); }
void matmul_q4(const MatmulArgs& args) { multiply<Format::kQ4>(args); }

void dequantize_row_f32(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kF32>(row, columns, block, output);
}
void dequantize_row_f16(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kF16>(row, columns, block, output);
}
void dequantize_row_bf16(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kBF16>(row, columns, block, output);
}
void dequantize_row_q8(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kQ8>(row, columns, block, output);
}
void dequantize_row_q4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kQ4>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
