// The CPU's kernels: one table of functions an instruction set, chosen once at run time.
//
// Determinism: a value that a kernel computes depends only on its own inputs, never on how many rows, tokens or
// heads the same call covers. Each (row, token) product is summed in one fixed order, so that any split of the work
// over blocks of rows, chunks of tokens, threads or passes gives bit-identical results within one instruction set.
//
// All kernels are single-threaded and allocate nothing; callers split the work. Weights need no alignment beyond
// one byte; float arrays are 4-byte aligned. No kernel reads or writes outside the ranges described.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../backend/activation.h"
#include "../backend/format.h"
#include "../backend/kv_format.h"

namespace layerstream::cpu {

// value = ((sum over c of input[t * input_stride + c] * weight[r][c]) * row_scale[r] + bias[r]) * scale
// output[t * output_stride + r] (+)= value
struct MatmulArgs {
  const uint8_t* weight;  // row 0 of this call
  size_t row_bytes;       // bytes from one row to the next
  uint32_t rows;
  uint32_t columns;
  uint32_t block;         // columns that share a scale: q8, a power of two from 32 on; q4, 64; ignored otherwise
  const float* input;
  size_t input_stride;    // floats
  float* output;
  size_t output_stride;   // floats
  uint32_t tokens;
  const float* bias;      // `rows` floats, or null
  const float* row_scale; // `rows` floats, or null
  float scale = 1.0f;
  bool accumulate;        // add to the output instead of overwriting it
  float* scratch;         // matmul_scratch_floats(columns, tokens) floats, private to the calling thread
};

// Upper bound of the scratch that any kernel needs for one call.
size_t matmul_scratch_floats(uint32_t columns, uint32_t tokens);

// Causal grouped-query attention over a paged cache, for query heads of one KV head and a range of tokens; the options
// are those of AttentionOp. Keys are visited in pages, at absolute positions, with an online softmax; no token x token
// matrix exists.
struct AttentionArgs {
  const float* query;       // [tokens][query_stride]; head h of a token starts at h * head_dim
  size_t query_stride;
  float* output;            // [tokens][output_stride]; head h of a token starts at h * value_dim; may be the query's
  size_t output_stride;     // memory if both strides and both dims are the same
  uint32_t heads, kv_heads, head_dim, value_dim;
  float scale;
  float soft_cap;           // 0: none
  uint32_t window;          // 0: everything before; else query i sees keys i - window + 1 .. i
  uint32_t logn_length;     // 0: none
  uint32_t first_position;  // absolute position of token 0
  // Work unit: query heads [head_begin, head_end), all of one KV head, of tokens [token_begin, token_end)
  uint32_t head_begin, head_end;
  uint32_t token_begin, token_end;
  const uint32_t* pages;    // page of the cache that holds positions [i * page_positions, (i + 1) * page_positions)
  uint32_t page_positions;
  KvFormat kv_format;
  size_t page_bytes;        // from one page of the cache to the next
  const uint8_t* keys;      // page p, KV head h: the block (kv_format.h) at keys + p * page_bytes + h * kv_block_bytes(head_dim)
  const uint8_t* values;    // likewise, with value_dim; null: the first value_dim elements of each key
  const float* sinks;       // `heads` floats, or null
  const float* slopes;      // `heads` floats, or null
  // The positions [part_begin, part_end) only, both multiples of 64 or beyond all that is seen. With a state, as AttentionOp
  // has it: it is found unless this part begins, and left, instead of the output, unless it ends.
  float* state;             // [tokens][heads][value_dim + 2], or null
  uint32_t part_begin = 0, part_end = UINT32_MAX;
  bool begins = true, ends = true;
  float* scratch;           // attention_scratch_floats(head_dim, value_dim) floats, private to the calling thread
};

size_t attention_scratch_floats(uint32_t head_dim, uint32_t value_dim);

// Source element types of a quantizer are f32, f16 or bf16.
struct QuantizeArgs {
  Format source_format;
  const uint8_t* source;  // [rows, columns], contiguous
  uint32_t rows, columns;
  Format format;          // kQ8 or kQ4
  uint32_t block;
  uint8_t* output;        // rows * row_bytes(format, columns, block)
};

// What NormOp says, for one token.
struct NormArgs {
  const float* input;
  float* output;
  const float* weight;  // or null
  const float* bias;    // or null
  uint32_t groups, width;
  float epsilon;
  bool centered, group_weights, accumulate;
};

// What ActivationOp says, for `count` floats.
struct ActivationArgs {
  float* gate;
  const float* up;  // or null
  size_t count;
  Activation activation;
  float alpha, limit;
};

// What RopeOp says, for one token.
struct RopeArgs {
  float* target;
  uint32_t heads, head_dim, rotary_dim, offset;
  bool interleaved;
  const float* cosine;  // rotary_dim / 2 each
  const float* sine;
};

// Tokens that are prepared together.
constexpr uint32_t kPreparedRun = 16;

// One way to Precision::kFast: activations are prepared once an op, rows multiplied in any parts after that.
struct FastKernels {
  // Whether such a matrix is multiplied this way; the exact kernels do the others.
  bool (*supports)(Format format, uint32_t block, uint32_t columns);
  // Memory for `tokens` prepared tokens, which needs to be aligned to 64 bytes.
  size_t (*prepared_bytes)(Format format, uint32_t block, uint32_t columns, uint32_t tokens);
  // Prepares tokens [token_begin, token_end) of `args.tokens`, whole runs up to the last token; weight, output and scratch
  // are not used.
  void (*prepare)(Format format, const MatmulArgs& args, uint32_t token_begin, uint32_t token_end, uint8_t* prepared);
  // Scratch of one call of `multiply`, private to its thread.
  size_t (*scratch_bytes)(Format format, uint32_t block, uint32_t columns, uint32_t tokens);
  // As KernelTable::matmul, from prepared tokens; the input is not used.
  void (*multiply)(Format format, const MatmulArgs& args, const uint8_t* prepared);
  uint32_t least_rows;  // that a call wants, because it prepares something for them; 0: any
  uint32_t row_step;    // rows cost as much as a multiple of it
};

// Null where this processor has none.
struct FastProducts {
  const FastKernels* vector;  // for requests of a few tokens
  const FastKernels* matrix;  // for those of many
};

struct KernelTable {
  const char* name;  // "scalar", "avx2", "avx512", "avx512-vnni", "neon"
  void (*matmul[kFormatCount])(const MatmulArgs&);
  void (*attention)(const AttentionArgs&);
  // One vector of `dim` floats as the cache holds it: its elements at `target`, its scale, if the format has any, at `scale`.
  void (*encode_kv)(KvFormat format, const float* source, uint32_t dim, uint8_t* target, float* scale);
  void (*norm)(const NormArgs&);
  void (*activate)(const ActivationArgs&);
  void (*rope)(const RopeArgs&);
  // values = cap * tanh(values / cap)
  void (*soft_cap)(float* values, size_t count, float cap);
  // One row of any format to float32.
  void (*dequantize_row[kFormatCount])(const uint8_t* row, uint32_t columns, uint32_t block, float* output);
  // Throws nothing; returns false if a source value is NaN or infinite, or a scale does not fit in float16.
  bool (*quantize)(const QuantizeArgs&);
  // Multiply-adds without memory, on as many registers as keep the processor busy: what products can reach at most. Returns
  // the number of floating point operations, two a multiply-add.
  uint64_t (*peak_f32)(uint32_t iterations);
  uint64_t (*peak_bf16)(uint32_t iterations) = nullptr;  // of pairs of bfloat16, added up in float32; null where absent
  FastProducts fast = {};
};

const KernelTable& scalar_kernels();
// Null where not compiled for this architecture or not supported by this processor.
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();
// The kernels of AVX-512, and with VNNI and BF16 also fast products.
const KernelTable* vnni_kernels();
const KernelTable* neon_kernels();

// The fastest table that this processor runs; LAYERSTREAM_SIMD=scalar|avx2|avx512|avx512-vnni|neon picks a slower one.
const KernelTable& best_kernels();

}  // namespace layerstream::cpu
