// The matrix product, written once over sixteen lanes for all formats. Included by each instruction set's matmul file
// after its simd.h.
//
// The order of a sum: columns are taken in chunks of 512. Within a chunk, lane l of one accumulator adds columns l,
// l + 16, ... in order; the lanes are then folded in a fixed tree, and the chunk's sum is added to the running sum of
// its (row, token). Both ways through the product keep that order:
//
//   one token      kVectorRows rows side by side, or kQuantizedRows; weights decoded in registers and used once
//   more tokens    a panel of kPanelRows rows is decoded once a chunk and multiplied with tiles of kTileTokens tokens;
//                  inputs are packed so that a chunk of up to 96 tokens stays in the second-level cache
//
// The including file also supplies, in its anonymous namespace:
//   kVectorRows, kQuantizedRows, kPanelRows, kTileTokens, kSumRows
//   void prefetch(const uint8_t* address)
//   void keep_in_register(Floats& value)      stops compilers from loading it again for each use
//   void add_sums(const Floats values[kSumRows], float sums[kSumRows])      sums[i] += sum(values[i])
//   Floats load_int8(const uint8_t* source)   16 codes as floats
//   Floats levels(const uint8_t* codes, float scale, uint32_t v)      columns 16 * v ... of a q4 block, scaled
#include <cstddef>

#include "../functions.h"
#include "../matmul_blocking.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

constexpr uint32_t kScales = kMatmulLanes;  // the most that a chunk needs: q8 blocks have at least 32 columns
constexpr uint32_t kVectors = kMatmulStep / kMatmulLanes;

static_assert(kPanelRows <= kMatmulMaximumPanel && kMatmulRowBlock % kPanelRows == 0);
static_assert(kPanelRows % kSumRows == 0 && kVectorRows % kSumRows == 0 && kQuantizedRows % kSumRows == 0);

constexpr bool is_quantized(Format format) { return format == Format::kQ8 || format == Format::kQ4; }

// Bytes of the codes of kMatmulStep columns.
constexpr size_t step_bytes(Format format) {
  return format == Format::kF32 ? 256 : format == Format::kQ8 ? 64 : format == Format::kQ4 ? 32 : 128;
}

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

constexpr uint32_t whole_steps(uint32_t columns) { return (columns + kMatmulStep - 1) / kMatmulStep * kMatmulStep; }

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
struct alignas(kMatmulAlignment) Scales {
  float values[kScales + 1];
};

// Where codes and scales lie in every row.
template <Format kFormat>
struct Layout {
  Layout(uint32_t columns, uint32_t block) {
    if constexpr (is_quantized(kFormat)) {
      while ((block >> block_shift) > 1) ++block_shift;
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

// Where a chunk lies in every row. A row's scales are decoded sixteen at a time, if need be from before the chunk's
// first on, so as not to read past the row's end. A step has two scales if blocks are of 32 columns.
template <Format kFormat, bool kTwoScales>
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

  const uint8_t* scales(const uint8_t* row) const { return row + scale_offset_; }

  void load_scales(const uint8_t* row, Scales& output) const {
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
    return row + code_offset_ + size_t{step} * step_bytes(kFormat);
  }

  // The codes of the last step of a row, of which some columns may not exist: their codes become zero.
  void pad_last_step(const uint8_t* row, uint8_t* output) const {
    const size_t left = left_ - size_t{steps_} * step_bytes(kFormat);
    const size_t bytes = left < step_bytes(kFormat) ? left : step_bytes(kFormat);
    std::memcpy(output, step_codes(row, steps_), bytes);
    std::memset(output + bytes, 0, step_bytes(kFormat) - bytes);
  }

  // Weights 16 * v ... 16 * v + 15 of a step of kRows rows, in stages that leave processors the most to overlap.
  template <uint32_t kRows>
  void weights(const uint8_t* const* step_codes, const Scales* scales, uint32_t step, uint32_t v,
               Floats* output) const {
    for (uint32_t r = 0; r < kRows; ++r) output[r] = decode<kFormat>(step_codes[r], scale(scales[r], step, v), v);
    if constexpr (kFormat == Format::kQ8) {
      for (uint32_t r = 0; r < kRows; ++r) output[r] = output[r] * broadcast(scale(scales[r], step, v));
    }
  }

 private:
  float scale(const Scales& scales, uint32_t step, uint32_t v) const {
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

void write_sums(const MatmulArgs& args, uint32_t token, uint32_t row, const float* sums, uint32_t count) {
  float* output = args.output + token * args.output_stride + row;
  for (uint32_t i = 0; i < count; ++i) {
    float value = sums[i];
    if (args.row_scale != nullptr) value *= args.row_scale[row + i];
    if (args.bias != nullptr) value += args.bias[row + i];
    value *= args.scale;
    output[i] = args.accumulate ? output[i] + value : value;
  }
}

template <Format kFormat, bool kTwoScales>
void multiply_vector(const MatmulArgs& args) {
  constexpr uint32_t kRows = is_quantized(kFormat) ? kQuantizedRows : kVectorRows;
  const Layout<kFormat> layout(args.columns, args.block);
  // The next rows are fetched while these are multiplied: within a row, a fixed distance would miss its beginning.
  const size_t ahead = kRows * args.row_bytes;
  const uint32_t tail = args.columns % kMatmulStep;
  float last_input[kMatmulStep] = {};
  std::memcpy(last_input, args.input + (args.columns - tail), tail * sizeof(float));

  for (uint32_t row = 0; row < args.rows; row += kRows) {
    const uint32_t count = smaller(kRows, args.rows - row);
    const uint8_t* rows[kRows];
    // Where rows run out, the last one stands in and its extra results are dropped.
    for (uint32_t r = 0; r < kRows; ++r) rows[r] = args.weight + (row + smaller(r, count - 1)) * args.row_bytes;
    float sums[kRows] = {};
    for (uint32_t column = 0; column < args.columns; column += kMatmulChunk) {
      const uint32_t width = smaller(kMatmulChunk, args.columns - column);
      const Chunk<kFormat, kTwoScales> chunk(layout, column, width);
      Scales scales[kRows];
      Floats accumulators[kRows];
      for (uint32_t r = 0; r < kRows; ++r) {
        chunk.load_scales(rows[r], scales[r]);
        prefetch(chunk.scales(rows[r]) + ahead);
        accumulators[r] = broadcast(0.0f);
      }
      const auto multiply_step = [&](const uint8_t* const* codes, const float* input, uint32_t step) {
        for (uint32_t v = 0; v < kVectors; ++v) {
          const Floats x = load(input + v * kMatmulLanes);
          Floats weights[kRows];
          chunk.template weights<kRows>(codes, scales, step, v, weights);
          for (uint32_t r = 0; r < kRows; ++r) accumulators[r] = multiply_add(weights[r], x, accumulators[r]);
        }
      };
      const uint8_t* codes[kRows];
      for (uint32_t step = 0; step < chunk.steps(); ++step) {
        for (uint32_t r = 0; r < kRows; ++r) {
          codes[r] = chunk.step_codes(rows[r], step);
          for (size_t line = 0; line < step_bytes(kFormat); line += 64) prefetch(codes[r] + ahead + line);
        }
        multiply_step(codes, args.input + column + step * kMatmulStep, step);
      }
      if (width % kMatmulStep != 0) {
        uint8_t padded[kRows][step_bytes(kFormat)];
        for (uint32_t r = 0; r < kRows; ++r) {
          chunk.pad_last_step(rows[r], padded[r]);
          codes[r] = padded[r];
        }
        multiply_step(codes, last_input, chunk.steps());
      }
      for (uint32_t r = 0; r < kRows; r += kSumRows) add_sums(accumulators + r, sums + r);
    }
    write_sums(args, 0, row, sums, count);
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
      Floats weight = load(panel + r * kMatmulLanes);
      keep_in_register(weight);
      for (uint32_t t = 0; t < kTokens; ++t) accumulators[t][r] = multiply_add(weight, x[t], accumulators[t][r]);
    }
    panel += kPanelRows * kMatmulLanes;
    inputs += kTokens * kMatmulLanes;
  }
  for (uint32_t t = 0; t < kTokens; ++t) {
    for (uint32_t r = 0; r < kPanelRows; r += kSumRows) add_sums(accumulators[t] + r, sums + t * kMatmulRowBlock + r);
  }
}

template <uint32_t kTokens = kTileTokens>
void multiply_tile(uint32_t tokens, const float* panel, const float* inputs, uint32_t vectors, float* sums) {
  if (tokens == kTokens) return multiply_tile<kTokens>(panel, inputs, vectors, sums);
  if constexpr (kTokens > 1) multiply_tile<kTokens - 1>(tokens, panel, inputs, vectors, sums);
}

// Decodes `count` rows of a chunk; the vectors of all rows at one place lie side by side. Missing rows stay as they
// are: their results are dropped.
template <Format kFormat, bool kTwoScales>
void decode_panel(const MatmulArgs& args, const Layout<kFormat>& layout, uint32_t row, uint32_t count, uint32_t column,
                  uint32_t width, float* panel) {
  const Chunk<kFormat, kTwoScales> chunk(layout, column, width);
  for (uint32_t r = 0; r < count; ++r) {
    const uint8_t* const weight = args.weight + (row + r) * args.row_bytes;
    Scales scales;
    chunk.load_scales(weight, scales);
    float* output = panel + r * kMatmulLanes;
    const auto put = [&](const uint8_t* codes, uint32_t step) {
      for (uint32_t v = 0; v < kVectors; ++v, output += kPanelRows * kMatmulLanes) {
        Floats weights;
        chunk.template weights<1>(&codes, &scales, step, v, &weights);
        store(output, weights);
      }
    };
    for (uint32_t step = 0; step < chunk.steps(); ++step) put(chunk.step_codes(weight, step), step);
    if (width % kMatmulStep != 0) {
      uint8_t padded[step_bytes(kFormat)];
      chunk.pad_last_step(weight, padded);
      put(padded, chunk.steps());
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

template <Format kFormat, bool kTwoScales>
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
          const uint32_t count = smaller(kPanelRows, rows - r);
          decode_panel<kFormat, kTwoScales>(args, layout, first_row + r, count, column, width, panel);
          for (uint32_t t = 0; t < tokens; t += kTileTokens) {
            multiply_tile(smaller(kTileTokens, tokens - t), panel, packed + size_t{t} * padded, padded / kMatmulLanes,
                          sums + size_t{t} * kMatmulRowBlock + r);
          }
        }
      }
      for (uint32_t t = 0; t < tokens; ++t) {
        write_sums(args, token + t, first_row, sums + size_t{t} * kMatmulRowBlock, rows);
      }
    }
  }
}

template <Format kFormat, bool kTwoScales = false>
void multiply(const MatmulArgs& args) {
  if (args.tokens == 1) {
    multiply_vector<kFormat, kTwoScales>(args);
  } else if (args.tokens > 1) {
    multiply_matrix<kFormat, kTwoScales>(args);
  }
}

template <Format kFormat, bool kTwoScales = false>
void dequantize(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  const Layout<kFormat> layout(columns, block);
  for (uint32_t column = 0; column < columns; column += kMatmulChunk) {
    const uint32_t width = smaller(kMatmulChunk, columns - column);
    const Chunk<kFormat, kTwoScales> chunk(layout, column, width);
    Scales scales;
    chunk.load_scales(row, scales);
    for (uint32_t step = 0; step * kMatmulStep < width; ++step) {
      const uint8_t* codes = chunk.step_codes(row, step);
      uint8_t padded[step_bytes(kFormat)];
      if (step == chunk.steps()) {
        chunk.pad_last_step(row, padded);
        codes = padded;
      }
      for (uint32_t c = 0; c < smaller(kMatmulStep, width - step * kMatmulStep); c += kMatmulLanes) {
        Floats weights;
        chunk.template weights<1>(&codes, &scales, step, c / kMatmulLanes, &weights);
        const uint32_t start = column + step * kMatmulStep + c;
        store(output + start, weights, smaller(kMatmulLanes, columns - start));
      }
    }
  }
}

}  // namespace

void matmul_f32(const MatmulArgs& args) { multiply<Format::kF32>(args); }
void matmul_f16(const MatmulArgs& args) { multiply<Format::kF16>(args); }
void matmul_bf16(const MatmulArgs& args) { multiply<Format::kBF16>(args); }
void matmul_q8(const MatmulArgs& args) {
  if (args.block < kMatmulStep) {
    multiply<Format::kQ8, true>(args);
  } else {
    multiply<Format::kQ8>(args);
  }
}
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
  if (block < kMatmulStep) {
    dequantize<Format::kQ8, true>(row, columns, block, output);
  } else {
    dequantize<Format::kQ8>(row, columns, block, output);
  }
}
void dequantize_row_q4(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  dequantize<Format::kQ4>(row, columns, block, output);
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
