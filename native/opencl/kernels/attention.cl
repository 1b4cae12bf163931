// Attention of GPUs, after kv_cache.cl and lanes.cl. Built with
//   LANES   work items of a group, and keys that are scored at once
//   HEADS   query heads of a group, which share a KV head: keys and values are loaded once for all of them
//   SPLIT   positions of a split
// Positions are divided into splits at fixed places, so that sums are the same bits however splits are launched.

// Of a head of a token and a split: the largest score, the weights' total relative to it, the weighted sums of values.
INLINE global float* split_at(global float* splits, uint split, uint split_count, uint token, uint heads, uint head, uint value_dim) {
  return splits + (((size_t)token * heads + head) * split_count + split) * (value_dim + 2);
}

// A work group is HEADS heads of a token in one of `split_count` splits from `first_split` on. The keys that it sees are taken LANES
// at a time, one a lane; then a lane adds up every LANES-th element of the values.
kernel void attention(global float* query, ulong query_offset, uint query_stride, global uchar* key_cache, ulong key_cache_offset,
                      global uchar* value_cache, ulong value_cache_offset, ulong page_bytes, global uint* pages, ulong pages_offset,
                      uint page_positions, uint first_position, uint heads, uint kv_heads, uint head_dim, uint value_dim, uint window,
                      float scale, uint values_in_keys, float soft_cap, uint logn_length, global float* slopes, ulong slopes_offset,
                      uint part_begin, uint part_end, uint first_split, uint split_count, global float* splits, ulong splits_offset,
                      local float* sums, local float* queries) {
  local float partial[LANES];
  local float weights[HEADS][LANES];
  local float value_scales[LANES];
  local ulong value_places[LANES];
  const uint lane = get_local_id(0), token = get_group_id(1);
  const uint split = get_group_id(0) % split_count, first_head = get_group_id(0) / split_count * HEADS;
  const uint kv_head = first_head / (heads / kv_heads);
  const uint own = first_position + token, end = own + 1;
  const uint begin = window != 0 && end > window ? end - window : 0, split_begin = (first_split + split) * SPLIT;
  const uint first_key = max(max(begin, part_begin), split_begin), end_key = min(min(end, part_end), split_begin + SPLIT);
  global float* results[HEADS];
#pragma unroll
  for (uint h = 0; h < HEADS; ++h) {
    results[h] = split_at(FLOATS(splits, splits_offset), split, split_count, token, heads, first_head + h, value_dim);
  }
  if (first_key >= end_key) {
    for (uint h = lane; h < HEADS; h += LANES) results[h][0] = -INFINITY;
    return;
  }
  global const uint* const page_table = WORDS(pages, pages_offset);
  global uchar* const keys = key_cache + key_cache_offset;
  global uchar* const values = values_in_keys ? keys : value_cache + value_cache_offset;
  const uint stored_dim = values_in_keys ? head_dim : value_dim;
  if (logn_length != 0 && end > logn_length) scale *= log((float)end) / log((float)logn_length);
  for (uint i = lane; i < HEADS * head_dim; i += LANES) {
    queries[i] = FLOATS(query, query_offset)[(size_t)token * query_stride + (size_t)first_head * head_dim + i];
  }
  for (uint i = lane; i < HEADS * value_dim; i += LANES) sums[i] = 0.0f;
  barrier(CLK_LOCAL_MEM_FENCE);
  float largest[HEADS], total[HEADS], corrections[HEADS];
#pragma unroll
  for (uint h = 0; h < HEADS; ++h) {
    largest[h] = -INFINITY;
    total[h] = 0.0f;
  }

  for (uint block = first_key / LANES * LANES; block < end_key; block += LANES) {
    const uint position = block + lane;
    float scores[HEADS];
#pragma unroll
    for (uint h = 0; h < HEADS; ++h) scores[h] = -INFINITY;
    if (position >= first_key && position < end_key) {
      const Cached key = find_vector(keys, page_table, page_bytes, page_positions, head_dim, kv_head, position);
      const float key_scale = load_scale(&key);
      float16 dots[HEADS];
#pragma unroll
      for (uint h = 0; h < HEADS; ++h) dots[h] = (float16)(0.0f);
      uint d = 0;
      for (; d + 16 <= head_dim; d += 16) {
        const float16 part = load_cached16(key.elements, d, key_scale);
#pragma unroll
        for (uint h = 0; h < HEADS; ++h) dots[h] = MULTIPLY_ADD(part, vload16(0, queries + h * head_dim + d), dots[h]);
      }
      const Cached value = find_vector(values, page_table, page_bytes, page_positions, stored_dim, kv_head, position);
      value_scales[lane] = load_scale(&value);
      value_places[lane] = (ulong)(value.elements - values);
#pragma unroll
      for (uint h = 0; h < HEADS; ++h) {
        float dot = sum16(dots[h]);
        for (uint rest = d; rest < head_dim; ++rest) {
          dot = MULTIPLY_ADD(load_cached(key.elements, rest, key_scale), queries[h * head_dim + rest], dot);
        }
        scores[h] = dot * scale;
        if (soft_cap != 0.0f) scores[h] = soft_cap * hyperbolic_tangent(scores[h] / soft_cap);
        if (slopes != 0) {
          scores[h] = MULTIPLY_ADD(FLOATS(slopes, slopes_offset)[first_head + h], (float)((int)position - (int)own), scores[h]);
        }
      }
    }
#pragma unroll
    for (uint h = 0; h < HEADS; ++h) {
      const float before = largest[h];
      largest[h] = max(before, largest_of_lanes(partial, scores[h]));
      corrections[h] = exp(before - largest[h]);
      const float weight = exp(scores[h] - largest[h]);
      weights[h][lane] = weight;
      total[h] = MULTIPLY_ADD(total[h], corrections[h], sum_of_lanes(partial, weight));
    }
    const uint first = max(first_key, block) - block, last = min(end_key - block, (uint)LANES);
    for (uint d = lane; d < value_dim; d += LANES) {
      float now[HEADS];
#pragma unroll
      for (uint h = 0; h < HEADS; ++h) now[h] = sums[h * value_dim + d] * corrections[h];
      for (uint k = first; k < last; ++k) {
        const float value = load_cached(values + value_places[k], d, value_scales[k]);
#pragma unroll
        for (uint h = 0; h < HEADS; ++h) now[h] = MULTIPLY_ADD(weights[h][k], value, now[h]);
      }
#pragma unroll
      for (uint h = 0; h < HEADS; ++h) sums[h * value_dim + d] = now[h];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
#pragma unroll
  for (uint h = 0; h < HEADS; ++h) {
    for (uint d = lane; d < value_dim; d += LANES) results[h][2 + d] = sums[h * value_dim + d];
    if (lane == 0) {
      results[h][0] = largest[h];
      results[h][1] = total[h];
    }
  }
}

// Group (head, token): splits join what is known from those before, in ascending order.
kernel void merge_splits(global float* splits, ulong splits_offset, uint split_count, global float* output, ulong output_offset,
                         uint output_stride, uint heads, uint value_dim, global float* sinks, ulong sinks_offset, global float* state,
                         ulong state_offset, uint begins, uint ends) {
  const uint lane = get_local_id(0), head = get_group_id(0), token = get_group_id(1);
  global float* const both = STATE(state, state_offset, token, heads, head, value_dim);
  global const float* const first = split_at(FLOATS(splits, splits_offset), 0, split_count, token, heads, head, value_dim);
  // A sink is as a key that comes first and whose value is 0.
  const float largest_before = !begins ? both[0] : sinks == 0 ? -INFINITY : FLOATS(sinks, sinks_offset)[head];
  const float total_before = !begins ? both[1] : sinks == 0 ? 0.0f : 1.0f;
  float largest = largest_before, total = total_before;
  for (uint d = lane; d < value_dim; d += LANES) {
    float sum = begins ? 0.0f : both[2 + d];
    largest = largest_before;
    total = total_before;
    for (uint s = 0; s < split_count; ++s) {
      global const float* const split = first + (size_t)s * (value_dim + 2);
      // A split of which the token sees nothing.
      if (split[0] == -INFINITY) continue;
      const float now = max(largest, split[0]), correction = exp(largest - now), factor = exp(split[0] - now);
      sum = MULTIPLY_ADD(sum, correction, split[2 + d] * factor);
      total = MULTIPLY_ADD(total, correction, split[1] * factor);
      largest = now;
    }
    if (ends) FLOATS(output, output_offset)[(size_t)token * output_stride + (size_t)head * value_dim + d] = sum / total;
    else both[2 + d] = sum;
  }
  if (ends) return;
  // Every lane has read it.
  barrier(CLK_GLOBAL_MEM_FENCE);
  if (lane != 0) return;
  both[0] = largest;
  both[1] = total;
}
