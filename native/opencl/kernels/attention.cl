// Attention of GPUs, after kv_cache.cl and lanes.cl. LANES: work items of a group, and keys that are scored at once.

// A work group is a head of a token. The keys that it sees are taken LANES at a time, one a lane; then a lane adds up every
// LANES-th element of the values.
kernel void attention(global float* query, ulong query_offset, global float* output, ulong output_offset, uint query_stride,
                      uint output_stride, global uchar* key_cache, ulong key_cache_offset, global uchar* value_cache,
                      ulong value_cache_offset, ulong page_bytes, global uint* pages, ulong pages_offset,
                      uint page_positions, uint first_position, uint heads, uint kv_heads, uint head_dim, uint value_dim,
                      uint window, float scale, uint values_in_keys, float soft_cap, uint logn_length, global float* sinks,
                      ulong sinks_offset, global float* slopes, ulong slopes_offset, global float* state, ulong state_offset, uint part_begin,
                      uint part_end, uint begins, uint ends, local float* sums, local float* queries) {
  local float partial[LANES];
  local float weights[LANES];
  local float value_scales[LANES];
  local ulong value_places[LANES];
  const uint lane = get_local_id(0), head = get_group_id(0), token = get_group_id(1);
  const uint kv_head = head / (heads / kv_heads);
  const uint own = first_position + token, end = own + 1;
  const uint begin = window != 0 && end > window ? end - window : 0;
  global const uint* const page_table = WORDS(pages, pages_offset);
  global uchar* const keys = key_cache + key_cache_offset;
  global uchar* const values = values_in_keys ? keys : value_cache + value_cache_offset;
  const uint stored_dim = values_in_keys ? head_dim : value_dim;
  if (logn_length != 0 && end > logn_length) scale *= log((float)end) / log((float)logn_length);
  const float slope = slopes == 0 ? 0.0f : FLOATS(slopes, slopes_offset)[head];
  // The output may be the query.
  for (uint d = lane; d < head_dim; d += LANES) {
    queries[d] = FLOATS(query, query_offset)[(size_t)token * query_stride + (size_t)head * head_dim + d];
  }
  global float* const both = STATE(state, state_offset, token, heads, head, value_dim);
  for (uint d = lane; d < value_dim; d += LANES) sums[d] = begins ? 0.0f : both[2 + d];
  barrier(CLK_LOCAL_MEM_FENCE);
  // A sink is as a key that comes first and whose value is 0.
  float largest = !begins ? both[0] : sinks == 0 ? -INFINITY : FLOATS(sinks, sinks_offset)[head];
  float total = !begins ? both[1] : sinks == 0 ? 0.0f : 1.0f;
  const uint first_key = max(begin, part_begin), end_key = min(end, part_end);

  for (uint block = first_key / LANES * LANES; block < end_key; block += LANES) {
    const uint position = block + lane;
    float score = -INFINITY;
    if (position >= first_key && position < end_key) {
      const Cached key = find_vector(keys, page_table, page_bytes, page_positions, head_dim, kv_head, position);
      const float key_scale = load_scale(&key);
      float16 sixteen = (float16)(0.0f);
      uint d = 0;
      for (; d + 16 <= head_dim; d += 16) sixteen = MULTIPLY_ADD(load_cached16(key.elements, d, key_scale), vload16(0, queries + d), sixteen);
      float dot = sum16(sixteen);
      for (; d < head_dim; ++d) dot = MULTIPLY_ADD(load_cached(key.elements, d, key_scale), queries[d], dot);
      const Cached value = find_vector(values, page_table, page_bytes, page_positions, stored_dim, kv_head, position);
      value_scales[lane] = load_scale(&value);
      value_places[lane] = (ulong)(value.elements - values);
      score = dot * scale;
      if (soft_cap != 0.0f) score = soft_cap * hyperbolic_tangent(score / soft_cap);
      if (slopes != 0) score = MULTIPLY_ADD(slope, (float)((int)position - (int)own), score);
    }
    const float before = largest;
    largest = max(largest, largest_of_lanes(partial, score));
    const float correction = exp(before - largest);
    const float weight = exp(score - largest);
    weights[lane] = weight;
    total = MULTIPLY_ADD(total, correction, sum_of_lanes(partial, weight));
    const uint first = max(first_key, block) - block, last = min(end_key - block, (uint)LANES);
    for (uint d = lane; d < value_dim; d += LANES) {
      float sum = sums[d] * correction;
      for (uint k = first; k < last; ++k) {
        sum = MULTIPLY_ADD(weights[k], load_cached(values + value_places[k], d, value_scales[k]), sum);
      }
      sums[d] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (uint d = lane; d < value_dim; d += LANES) {
    if (ends) FLOATS(output, output_offset)[(size_t)token * output_stride + (size_t)head * value_dim + d] = sums[d] / total;
    else both[2 + d] = sums[d];
  }
  if (ends) return;
  // Every lane has read it.
  barrier(CLK_GLOBAL_MEM_FENCE);
  if (lane != 0) return;
  both[0] = largest;
  both[1] = total;
}
