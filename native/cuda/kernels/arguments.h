// What each kernel takes: one struct by value. For the compilers of the device and of the host; what ops mean is in
// backend/ops.h. Pointers are device memory; null stands for an absent range.
#pragma once

#include <cstdint>

#include "../../backend/activation.h"
#include "../../backend/format.h"
#include "../../backend/kv_format.h"

namespace layerstream::cuda {

// How a row of weights lies in memory.
struct RowLayout {
  uint32_t columns, block;
  int32_t block_shift;  // log2 of the block, or -1
  uint32_t groups;      // that have scales
  uint32_t code_bytes;  // of a row
};

// Whether codes are indexes of a table.
constexpr bool uses_levels(Format format) { return format == Format::kQ4 || format == Format::kNf4 || format == Format::kMxfp4; }

// Of the table of pairs of levels, which comes before the inputs in the shared memory of vector products.
constexpr uint32_t kPairTableBytes = 32 << 10;

struct EmbedArguments {
  const uint8_t* row;
  float* output;
  RowLayout layout;
  Format format;
  float scale;
};

struct NormArguments {
  const float* input;
  float* output;
  const float* weight;
  const float* bias;
  uint32_t groups, width, input_stride, output_stride;
  float epsilon;
  bool centered, group_weights, accumulate;
};

struct MatmulArguments {
  const uint8_t* weight;
  uint64_t row_bytes;
  const float* input;
  float* output;
  const float* bias;
  const float* row_scale;
  RowLayout layout;
  Format format;
  uint32_t rows, tokens, input_stride, output_stride;
  // Of vector products: a multiple of the rows that a warp multiplies at once; columns in shared memory at a time, a multiple
  // of what a warp takes at once: 1024 where codes are indexes, else at most 2048.
  uint32_t rows_per_warp, chunk_columns;
  float scale;
  bool accumulate;
  // Of fast products of many tokens: inputs as float16, rows of whole 64 columns, and what each token's are multiples of.
  const uint16_t* halves;
  const float* factors;
};

// Of a block of matrix_fast.
constexpr uint32_t kMatrixFastSharedBytes = 75276;

struct PrepareArguments {
  const float* input;
  uint32_t* halves;  // pairs
  float* factors;
  uint32_t input_stride, columns, padded_columns;
};

struct RopeArguments {
  float* target;
  const float* cosine;
  const float* sine;
  uint32_t stride, heads, head_dim, rotary_dim, offset;
  bool interleaved;
};

struct AppendArguments {
  const float* source;
  uint8_t* cache;
  const uint32_t* pages;
  uint64_t page_bytes;
  uint32_t stride, dim, page_positions, first_position;
  KvFormat format;
};

// Positions of a split of attention: of which partial results are kept.
constexpr uint32_t kSplitPositions = 128;

struct AttentionArguments {
  const float* query;
  float* output;
  float* partial;  // of split attention: for each token, head and split a maximum, a total and value_dim sums
  const uint8_t* keys;
  const uint8_t* values;
  const uint32_t* pages;
  const float* sinks;
  const float* slopes;
  float* state;  // for each token and head as of `partial`: found unless `begins`, left unless `ends`; or null
  uint64_t page_bytes;
  uint32_t query_stride, output_stride, page_positions, first_position, tokens;
  uint32_t part_begin, part_end;  // splits that are attended to: [part_begin, part_end)
  uint32_t heads, kv_heads, head_dim, value_dim;
  uint32_t stored_dim;  // of a value in the cache
  uint32_t window, logn_length;
  uint32_t splits;  // of the grid; 1: every block sees all of its token's
  float scale, soft_cap;
  bool begins, ends;
  bool codes;  // the cache is in 8 bits: where one kernel is for that and for bf16
  bool aligned;  // four elements from a multiple of four on can be loaded at once
};

// Attention of many tokens: query heads of tokens in a block, keys in a tile, dimensions in shared memory at once.
constexpr uint32_t kPromptRows = 64, kPromptDims = 128;
constexpr uint32_t prompt_keys(KvFormat format) { return format == KvFormat::kF32 ? 32 : 64; }
// Values of bfloat16 whose sum a cached float is: those of the other formats are such.
constexpr uint32_t prompt_parts(KvFormat format) { return format == KvFormat::kF32 ? 3 : 1; }
constexpr uint32_t prompt_shared_bytes(KvFormat format) {
  const uint32_t keys = prompt_keys(format);
  const uint32_t queries = kPromptRows * ((kPromptDims + 8) * 4 + 8), elements = keys * (kPromptDims + 8) * 2 * prompt_parts(format);
  return queries + elements + keys * 2 * (8 + 4);
}

struct ActivationArguments {
  float* gate;
  const float* up;
  uint32_t width, gate_stride, up_stride;
  Activation activation;
  float alpha, limit;
};

struct ScaleTokensArguments {
  float* target;
  const float* factor;
  uint32_t width, target_stride, factor_stride;
};

struct SoftCapArguments {
  float* target;
  uint32_t width, stride;
  float cap;
};

// Of gather_rows, scatter_add and permute: `indexes` are the rows or the columns.
struct IndexedArguments {
  const float* input;
  float* output;
  const uint32_t* indexes;
  const float* weights;
  uint32_t width, input_stride, output_stride;
};

}  // namespace layerstream::cuda
