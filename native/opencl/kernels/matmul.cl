// Products with a matrix of one format, after weights.cl. Built with
//   LANES   work items that share a row: each takes every LANES-th step of 64 columns
//   STEP_BYTES  of the codes of a step
//   ROWS    rows of a work group at once, TOKENS tokens at once
// Sums are the same bits whatever ROWS and TOKENS are: sixteen accumulators a lane, columns ascending, then fixed trees.

// Asks for what the next rows, which follow in memory, have in this place. Most of a step's bytes are its codes.
INLINE void fetch_ahead(global const uchar* source, ulong row_bytes) {
#if HOST_PROCESSOR && defined(__clang__)
#pragma unroll
  for (uint line = 0; line < STEP_BYTES; line += 64) __builtin_prefetch((const void*)(size_t)(source + ROWS * row_bytes + line), 0, 2);
#endif
}

INLINE Row make_row(uint columns, uint block, int block_shift, uint groups, uint code_bytes) {
  const Row layout = {columns, block, block_shift, groups, code_bytes};
  return layout;
}

kernel void embed(global const uchar* weight, ulong weight_offset, uint columns, uint block, int block_shift, uint groups,
                  uint code_bytes, float scale, global float* output, ulong output_offset) {
  const Row layout = make_row(columns, block, block_shift, groups, code_bytes);
  const uint column = get_global_id(0);
  if (column < columns) FLOATS(output, output_offset)[column] = decode_one(&layout, weight + weight_offset, column) * scale;
}

// `output` is the token's.
INLINE void put_product(float sum, uint row, global float* row_scale, ulong row_scale_offset, global float* bias,
                        ulong bias_offset, float scale, uint accumulate, global float* output) {
  if (row_scale != 0) sum *= FLOATS(row_scale, row_scale_offset)[row];
  if (bias != 0) sum += FLOATS(bias, bias_offset)[row];
  sum *= scale;
  output[row] = accumulate ? output[row] + sum : sum;
}

kernel void matmul(global const uchar* weight, ulong weight_offset, ulong row_bytes, uint rows, uint rows_per_group,
                   uint columns, uint block, int block_shift, uint groups, uint code_bytes,
                   global float* input, ulong input_offset, uint input_stride,
                   global float* output, ulong output_offset, uint output_stride,
                   global float* bias, ulong bias_offset, global float* row_scale, ulong row_scale_offset,
                   uint tokens, float scale, uint accumulate) {
  const Row layout = make_row(columns, block, block_shift, groups, code_bytes);
  const uint lane = LANES == 1 ? 0 : get_local_id(0);
  const uint first_token = get_group_id(1) * TOKENS;
  const uint first_row = get_group_id(0) * rows_per_group;
  const uint end_row = min(first_row + rows_per_group, rows);
  const uint steps = columns / 64, tail = columns % 64;
  // Of every row and token, one for each lane.
#if LANES > 1
  local float partial[ROWS * TOKENS][LANES];
#else
  float partial[ROWS * TOKENS][1];
#endif
  // Where tokens or rows run out, the last one stands in and its extra results are dropped.
  global const float* inputs[TOKENS];
#pragma unroll
  for (uint t = 0; t < TOKENS; ++t) inputs[t] = FLOATS(input, input_offset) + (size_t)min(first_token + t, tokens - 1) * input_stride;

  for (uint row = first_row; row < end_row; row += ROWS) {
    global const uchar* sources[ROWS];
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) sources[r] = weight + weight_offset + min(row + r, end_row - 1) * row_bytes;
    uint states[ROWS];
    float16 sums[ROWS][TOKENS];
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
#pragma unroll
      for (uint t = 0; t < TOKENS; ++t) sums[r][t] = (float16)(0.0f);
    }
    for (uint step = lane; step < steps; step += LANES) {
#if LANES == 1 && TOKENS > 1
      // Every part of a token is loaded once for all rows.
      float16 weights[ROWS][4];
#pragma unroll
      for (uint r = 0; r < ROWS; ++r) decode_step(&layout, sources[r], step, &states[r], weights[r]);
#pragma unroll
      for (uint v = 0; v < 4; ++v) {
#pragma unroll
        for (uint t = 0; t < TOKENS; ++t) {
          const float16 x = vload16(4 * step + v, inputs[t]);
#pragma unroll
          for (uint r = 0; r < ROWS; ++r) sums[r][t] = MULTIPLY_ADD(weights[r][v], x, sums[r][t]);
        }
      }
#else
#pragma unroll
      for (uint r = 0; r < ROWS; ++r) {
        float16 weights[4];
        decode_step(&layout, sources[r], step, &states[r], weights);
        fetch_ahead(sources[r] + (size_t)step * STEP_BYTES, row_bytes);
#pragma unroll
        for (uint v = 0; v < 4; ++v) {
#pragma unroll
          for (uint t = 0; t < TOKENS; ++t) {
            sums[r][t] = MULTIPLY_ADD(weights[v], vload16(4 * step + v, inputs[t]), sums[r][t]);
          }
        }
      }
#endif
    }
    // The last columns, zeros behind them: seldom there, so in little code.
    if (tail > 0 && steps % LANES == lane) {
      float last_weights[ROWS][64], last_inputs[TOKENS][64];
#pragma nounroll
      for (uint i = 0; i < 64; ++i) {
        for (uint r = 0; r < ROWS; ++r) last_weights[r][i] = i < tail ? decode_one(&layout, sources[r], 64 * steps + i) : 0.0f;
        for (uint t = 0; t < TOKENS; ++t) last_inputs[t][i] = i < tail ? inputs[t][64 * steps + i] : 0.0f;
      }
#pragma nounroll
      for (uint v = 0; 16 * v < tail; ++v) {
#pragma unroll
        for (uint r = 0; r < ROWS; ++r) {
#pragma unroll
          for (uint t = 0; t < TOKENS; ++t) {
            sums[r][t] = MULTIPLY_ADD(vload16(v, last_weights[r]), vload16(v, last_inputs[t]), sums[r][t]);
          }
        }
      }
    }
#pragma unroll
    for (uint r = 0; r < ROWS; ++r) {
#pragma unroll
      for (uint t = 0; t < TOKENS; ++t) partial[r * TOKENS + t][lane] = sum16(sums[r][t]);
    }
#if LANES > 1
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint count = LANES / 2; count > 0; count /= 2) {
      for (uint each = lane; each < ROWS * TOKENS * count; each += LANES) {
        partial[each / count][each % count] += partial[each / count][each % count + count];
      }
      barrier(CLK_LOCAL_MEM_FENCE);
    }
#endif
    for (uint each = lane; each < ROWS * TOKENS; each += LANES) {
      const uint target_row = row + each / TOKENS, token = first_token + each % TOKENS;
      if (target_row >= end_row || token >= tokens) continue;
      put_product(partial[each][0], target_row, row_scale, row_scale_offset, bias, bias_offset, scale, accumulate,
                  FLOATS(output, output_offset) + (size_t)token * output_stride);
    }
#if LANES > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
  }
}
