// The matrix product, written once over sixteen lanes for all formats. Included after an instruction set's decode.h by
// the files that define codecs: how the weights of a row are decoded.
//
// The order of a sum: columns are taken in chunks of 512. Within a chunk, lane l of one accumulator adds columns l,
// l + 16, ... in order; the lanes are then folded in a fixed tree, and the chunk's sum is added to the running sum of
// its (row, token). Both ways through the product keep that order:
//
//   one token      Codec::kRows rows side by side; weights decoded in registers and used once
//   more tokens    a panel of kPanelRows rows is decoded once a chunk and multiplied with tiles of kTileTokens tokens;
//                  inputs are packed so that a chunk of up to 96 tokens stays in the second-level cache
//
// A Codec is made from (columns, block) and has
//   kRows        rows side by side
//   kStep        columns decoded at once, a divisor of kMatmulChunk
//   kStepBytes   bytes of a step's codes
//   Scales       what load_scales decodes of a row's scales in a chunk
//   Chunk        made from (codec, column, width): how a chunk of a row is decoded
//     steps()                                   whole ones
//     load_scales(row, Scales&)
//     scales(row)                               where they are read, for prefetching
//     step_codes(row, step)
//     pad_last_step(row, uint8_t*)              a copy of the codes of a step that is not whole; missing weights become 0
//     decode_step(codes, row, scales, step, sink)         sink(v, weights 16 * v ... 16 * v + 15 of the step), v ascending
//     multiply_step(codes[kRows], rows[kRows], scales[kRows], step, input, accumulators[kRows])
//
// An instruction set's decode.h supplies, in its anonymous namespace:
//   kVectorRows, kQuantizedRows, kPanelRows, kTileTokens, kSumRows
//   void prefetch(const uint8_t* address)
//   void keep_in_register(Floats& value)      stops compilers from loading it again for each use
//   void add_sums(const Floats values[kSumRows], float sums[kSumRows])      sums[i] += sum(values[i])
//   Floats load_int8(const uint8_t* source)   16 codes as floats
//   Floats levels(const uint8_t* codes, float scale, uint32_t v)      columns 16 * v ... of a q4 block, scaled
#include <cstddef>

#include "../functions.h"
#include "../matmul_blocking.h"
#include "write_sums.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

static_assert(kPanelRows <= kMatmulMaximumPanel && kMatmulRowBlock % kPanelRows == 0);
static_assert(kPanelRows % kSumRows == 0 && kVectorRows % kSumRows == 0 && kQuantizedRows % kSumRows == 0);

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

constexpr uint32_t whole_steps(uint32_t columns) { return (columns + kMatmulStep - 1) / kMatmulStep * kMatmulStep; }

template <class Codec>
void multiply_vector(const MatmulArgs& args) {
  constexpr uint32_t kRows = Codec::kRows;
  const Codec codec(args.columns, args.block);
  // The next rows are fetched while these are multiplied: within a row, a fixed distance would miss its beginning.
  const size_t ahead = kRows * args.row_bytes;
  const uint32_t tail = args.columns % Codec::kStep;
  float last_input[Codec::kStep] = {};
  std::memcpy(last_input, args.input + (args.columns - tail), tail * sizeof(float));

  for (uint32_t row = 0; row < args.rows; row += kRows) {
    const uint32_t count = smaller(kRows, args.rows - row);
    const uint8_t* rows[kRows];
    // Where rows run out, the last one stands in and its extra results are dropped.
    for (uint32_t r = 0; r < kRows; ++r) rows[r] = args.weight + (row + smaller(r, count - 1)) * args.row_bytes;
    float sums[kRows] = {};
    for (uint32_t column = 0; column < args.columns; column += kMatmulChunk) {
      const uint32_t width = smaller(kMatmulChunk, args.columns - column);
      const typename Codec::Chunk chunk(codec, column, width);
      typename Codec::Scales scales[kRows];
      Floats accumulators[kRows];
      for (uint32_t r = 0; r < kRows; ++r) {
        chunk.load_scales(rows[r], scales[r]);
        prefetch(chunk.scales(rows[r]) + ahead);
        accumulators[r] = broadcast(0.0f);
      }
      const uint8_t* codes[kRows];
      for (uint32_t step = 0; step < chunk.steps(); ++step) {
        for (uint32_t r = 0; r < kRows; ++r) {
          codes[r] = chunk.step_codes(rows[r], step);
          for (size_t line = 0; line < Codec::kStepBytes; line += 64) prefetch(codes[r] + ahead + line);
        }
        chunk.multiply_step(codes, rows, scales, step, args.input + column + step * Codec::kStep, accumulators);
      }
      if (width % Codec::kStep != 0) {
        uint8_t padded[kRows][Codec::kStepBytes];
        for (uint32_t r = 0; r < kRows; ++r) {
          chunk.pad_last_step(rows[r], padded[r]);
          codes[r] = padded[r];
        }
        chunk.multiply_step(codes, rows, scales, chunk.steps(), last_input, accumulators);
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

// Decodes a chunk of a row; `stride` floats lie between the beginnings of its vectors of sixteen.
template <class Codec>
void decode_chunk(const Codec& codec, const uint8_t* row, uint32_t column, uint32_t width, float* output,
                  size_t stride) {
  const typename Codec::Chunk chunk(codec, column, width);
  typename Codec::Scales scales;
  chunk.load_scales(row, scales);
  for (uint32_t step = 0; step * Codec::kStep < width; ++step) {
    const uint8_t* codes = chunk.step_codes(row, step);
    uint8_t padded[Codec::kStepBytes];
    if (step == chunk.steps()) {
      chunk.pad_last_step(row, padded);
      codes = padded;
    }
    chunk.decode_step(codes, row, scales, step,
                      [&](uint32_t v, Floats weights) { store(output + v * stride, weights); });
    output += Codec::kStep / kMatmulLanes * stride;
  }
}

// Decodes `count` rows of a chunk; the vectors of all rows at one place lie side by side. Missing rows stay as they
// are: their results are dropped.
template <class Codec>
void decode_panel(const MatmulArgs& args, uint32_t row, uint32_t count, uint32_t column, uint32_t width,
                  float* panel) {
  const Codec codec(args.columns, args.block);
  for (uint32_t r = 0; r < count; ++r) {
    decode_chunk(codec, args.weight + (row + r) * args.row_bytes, column, width, panel + r * kMatmulLanes,
                 kPanelRows * kMatmulLanes);
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

using DecodePanel = void (*)(const MatmulArgs& args, uint32_t row, uint32_t count, uint32_t column, uint32_t width,
                             float* panel);

void multiply_matrix(const MatmulArgs& args, DecodePanel decode) {
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
          decode(args, first_row + r, count, column, width, panel);
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

template <class Codec>
void multiply(const MatmulArgs& args) {
  if (args.tokens == 1) {
    multiply_vector<Codec>(args);
  } else if (args.tokens > 1) {
    multiply_matrix(args, decode_panel<Codec>);
  }
}

template <class Codec>
void dequantize(const uint8_t* row, uint32_t columns, uint32_t block, float* output) {
  const Codec codec(columns, block);
  alignas(kMatmulAlignment) float weights[kMatmulChunk];
  for (uint32_t column = 0; column < columns; column += kMatmulChunk) {
    const uint32_t width = smaller(kMatmulChunk, columns - column);
    decode_chunk(codec, row, column, width, weights, kMatmulLanes);
    std::memcpy(output + column, weights, width * sizeof(float));
  }
}

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
