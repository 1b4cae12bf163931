// Attention of processors, after kv_cache.cl: a work item has all keys of QUERIES queries that share a KV head, each the head of
// a token. Keys and values are loaded once for all of them. Compilers take seconds for loops that they unroll in vain.

#define KEYS 64  // at once

// What is known of a query.
typedef struct {
  uint own, begin;  // its position, and the first that it sees
  float scale, slope;
  float largest, total;
} Query;

// Scores become weights. Returns what the sums so far are multiplied with.
INLINE float weigh(Query* query, float* scores, uint block, float soft_cap) {
  const int16 places = (int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  float16 largest = (float16)(-INFINITY);
#pragma nounroll
  for (uint k = 0; k < KEYS; k += 16) {
    const int16 positions = places + (int)(block + k);
    float16 score = vload16(0, scores + k) * query->scale;
    if (soft_cap != 0.0f) {
      float capped[16];
      vstore16(score / soft_cap, 0, capped);
#pragma nounroll
      for (uint i = 0; i < 16; ++i) capped[i] = soft_cap * hyperbolic_tangent(capped[i]);
      score = vload16(0, capped);
    }
    score = MULTIPLY_ADD((float16)(query->slope), convert_float16(positions - (int)query->own), score);
    score = select((float16)(-INFINITY), score, positions >= (int)query->begin && positions <= (int)query->own);
    vstore16(score, 0, scores + k);
    largest = max(largest, score);
  }
  const float8 a = max(largest.lo, largest.hi);
  const float4 b = max(a.lo, a.hi);
  const float2 c = max(b.lo, b.hi);
  const float before = query->largest, now = max(before, max(c.x, c.y));
  // None of these keys, and none before.
  if (now == -INFINITY) {
#pragma nounroll
    for (uint k = 0; k < KEYS; ++k) scores[k] = 0.0f;
    return 1.0f;
  }
  float16 sum = (float16)(0.0f);
#pragma nounroll
  for (uint k = 0; k < KEYS; k += 16) {
    const float16 weight = exp(vload16(0, scores + k) - now);
    vstore16(weight, 0, scores + k);
    sum += weight;
  }
  const float correction = exp(before - now);
  query->largest = now;
  query->total = MULTIPLY_ADD(query->total, correction, sum16(sum));
  return correction;
}

// Item (block of QUERIES queries, KV head); queries are in order of tokens, those of a token in order of heads.
kernel void attend(global float* query, ulong query_offset, global float* output, ulong output_offset, uint query_stride,
                   uint output_stride, global uchar* key_cache, ulong key_cache_offset, global uchar* value_cache,
                   ulong value_cache_offset, ulong page_bytes, global uint* pages, ulong pages_offset, uint page_positions,
                   uint first_position, uint heads, uint kv_heads, uint head_dim, uint value_dim, uint window, float scale,
                   uint values_in_keys, float soft_cap, uint logn_length, global float* sinks, ulong sinks_offset,
                   global float* slopes, ulong slopes_offset, global float* state, ulong state_offset, uint part_begin, uint part_end,
                   uint begins, uint ends, uint tokens, local float* sums, local float* vectors) {
  const uint kv_head = get_global_id(1), group = heads / kv_heads, first = get_global_id(0) * QUERIES;
  global const uint* const page_table = WORDS(pages, pages_offset);
  global uchar* const keys = key_cache + key_cache_offset;
  global uchar* const values = values_in_keys ? keys : value_cache + value_cache_offset;
  const uint stored_dim = values_in_keys ? head_dim : value_dim;
  Query queries[QUERIES];
  uint begin = UINT_MAX, end = 0;
#pragma nounroll
  for (uint q = 0; q < QUERIES; ++q) {
    // Where queries run out, the last one stands in.
    const uint index = min(first + q, tokens * group - 1), token = index / group, head = kv_head * group + index % group;
    Query* const each = &queries[q];
    each->own = first_position + token;
    each->begin = window != 0 && each->own + 1 > window ? each->own + 1 - window : 0;
    each->scale = scale;
    if (logn_length != 0 && each->own + 1 > logn_length) each->scale *= log((float)(each->own + 1)) / log((float)logn_length);
    each->slope = slopes == 0 ? 0.0f : FLOATS(slopes, slopes_offset)[head];
    global const float* const found = STATE(state, state_offset, token, heads, head, value_dim);
    // A sink is as a key that comes first and whose value is 0.
    each->largest = !begins ? found[0] : sinks == 0 ? -INFINITY : FLOATS(sinks, sinks_offset)[head];
    each->total = !begins ? found[1] : sinks == 0 ? 0.0f : 1.0f;
    begin = min(begin, each->begin);
    end = max(end, each->own + 1);
    // The output may be the query.
    global const float* const source = FLOATS(query, query_offset) + (size_t)token * query_stride + (size_t)head * head_dim;
#pragma nounroll
    for (uint d = 0; d < head_dim; ++d) vectors[q * head_dim + d] = source[d];
#pragma nounroll
    for (uint d = 0; d < value_dim; ++d) sums[q * value_dim + d] = begins ? 0.0f : found[2 + d];
  }
  begin = max(begin, part_begin);
  end = min(end, part_end);

#pragma nounroll
  for (uint block = begin / KEYS * KEYS; block < end; block += KEYS) {
    const uint low = max(begin, block) - block, high = min(end - block, (uint)KEYS);
    float scores[QUERIES][KEYS];
    float value_scales[KEYS];
    ulong value_places[KEYS];
#pragma nounroll
    for (uint q = 0; q < QUERIES; ++q) {
#pragma nounroll
      for (uint k = 0; k < KEYS; k += 16) vstore16((float16)(0.0f), 0, scores[q] + k);
    }
#pragma nounroll
    for (uint k = low; k < high; ++k) {
      const Cached key = find_vector(keys, page_table, page_bytes, page_positions, head_dim, kv_head, block + k);
      const float key_scale = load_scale(&key);
      float16 dots[QUERIES];
#pragma unroll
      for (uint q = 0; q < QUERIES; ++q) dots[q] = (float16)(0.0f);
      uint d = 0;
#pragma nounroll
      for (; d + 16 <= head_dim; d += 16) {
        const float16 part = load_cached16(key.elements, d, key_scale);
#pragma unroll
        for (uint q = 0; q < QUERIES; ++q) dots[q] = MULTIPLY_ADD(part, vload16(0, vectors + q * head_dim + d), dots[q]);
      }
#pragma unroll
      for (uint q = 0; q < QUERIES; ++q) {
        float dot = sum16(dots[q]);
#pragma nounroll
        for (uint rest = d; rest < head_dim; ++rest) {
          dot = MULTIPLY_ADD(load_cached(key.elements, rest, key_scale), vectors[q * head_dim + rest], dot);
        }
        scores[q][k] = dot;
      }
      const Cached value = find_vector(values, page_table, page_bytes, page_positions, stored_dim, kv_head, block + k);
      value_scales[k] = load_scale(&value);
      value_places[k] = (ulong)(value.elements - values);
    }
    float corrections[QUERIES];
#pragma nounroll
    for (uint q = 0; q < QUERIES; ++q) corrections[q] = weigh(&queries[q], scores[q], block, soft_cap);
    uint d = 0;
#pragma nounroll
    for (; d + 16 <= value_dim; d += 16) {
      float16 totals[QUERIES];
#pragma unroll
      for (uint q = 0; q < QUERIES; ++q) totals[q] = vload16(0, sums + q * value_dim + d) * corrections[q];
#pragma nounroll
      for (uint k = low; k < high; ++k) {
        const float16 part = load_cached16(values + value_places[k], d, value_scales[k]);
#pragma unroll
        for (uint q = 0; q < QUERIES; ++q) totals[q] = MULTIPLY_ADD(part, (float16)(scores[q][k]), totals[q]);
      }
#pragma unroll
      for (uint q = 0; q < QUERIES; ++q) vstore16(totals[q], 0, sums + q * value_dim + d);
    }
#pragma nounroll
    for (; d < value_dim; ++d) {
#pragma nounroll
      for (uint q = 0; q < QUERIES; ++q) {
        float sum = sums[q * value_dim + d] * corrections[q];
#pragma nounroll
        for (uint k = low; k < high; ++k) sum = MULTIPLY_ADD(scores[q][k], load_cached(values + value_places[k], d, value_scales[k]), sum);
        sums[q * value_dim + d] = sum;
      }
    }
  }
#pragma nounroll
  for (uint q = 0; q < QUERIES && first + q < tokens * group; ++q) {
    const uint token = (first + q) / group, head = kv_head * group + (first + q) % group;
    global float* const target = FLOATS(output, output_offset) + (size_t)token * output_stride + (size_t)head * value_dim;
    global float* const left = STATE(state, state_offset, token, heads, head, value_dim);
#pragma nounroll
    for (uint d = 0; d < value_dim; ++d) {
      if (ends) target[d] = sums[q * value_dim + d] / queries[q].total;
      else left[2 + d] = sums[q * value_dim + d];
    }
    if (ends) continue;
    left[0] = queries[q].largest;
    left[1] = queries[q].total;
  }
}
