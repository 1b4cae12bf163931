// Keys and values on their way into the cache (backend/kv_format.h), and attention over it. Built with
//   KV_f32, KV_bf16 or KV_8bit   1 for the format of the cache
//   LANES                        work items of a group, and keys that are scored at once

#if KV_f32
#define ELEMENT_BYTES 4
#elif KV_bf16
#define ELEMENT_BYTES 2
#else
#define ELEMENT_BYTES 1
#endif

// Where in a block the scales begin, and how long it is.
INLINE ulong scales_offset(uint positions, uint dim) { return ((ulong)positions * dim + 3) / 4 * 4; }
INLINE ulong block_bytes(uint positions, uint dim) {
#if KV_8bit
  return scales_offset(positions, dim) + 4 * (ulong)positions;
#else
  return (ulong)positions * dim * ELEMENT_BYTES;
#endif
}

// A vector of a cache.
typedef struct {
  global uchar* elements;
  global float* scale;
} Cached;

INLINE Cached find_vector(global uchar* cache, global const uint* pages, ulong page_bytes, uint positions, uint dim, uint head,
                          uint position) {
  global uchar* const block = cache + pages[position / positions] * page_bytes + head * block_bytes(positions, dim);
  const uint within = position % positions;
  const Cached found = {block + (size_t)within * dim * ELEMENT_BYTES, (global float*)(block + scales_offset(positions, dim)) + within};
  return found;
}

INLINE float load_scale(const Cached* vector) {
#if KV_8bit
  return *vector->scale;
#else
  return 1.0f;
#endif
}

INLINE float load_cached(global const uchar* elements, uint i, float scale) {
#if KV_f32
  return ((global const float*)elements)[i];
#elif KV_bf16
  return as_float((uint)((global const ushort*)elements)[i] << 16);
#else
  return (float)as_char(elements[i]) * scale;
#endif
}

INLINE float16 load_cached16(global const uchar* elements, uint first, float scale) {
#if KV_f32
  return vload16(0, (global const float*)elements + first);
#elif KV_bf16
  return as_float16(convert_uint16(vload16(0, (global const ushort*)elements + first)) << 16);
#else
  return convert_float16(as_char16(vload16(0, elements + first))) * scale;
#endif
}

INLINE void put_vector(const Cached* vector, global const float* source, uint dim) {
#if KV_f32
  for (uint i = 0; i < dim; ++i) ((global float*)vector->elements)[i] = source[i];
#elif KV_bf16
  for (uint i = 0; i < dim; ++i) {
    const uint bits = as_uint(source[i]);
    const uint nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    ((global ushort*)vector->elements)[i] = (ushort)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : nearest);
  }
#else
  uint largest = 0;
  for (uint i = 0; i < dim; ++i) largest = max(largest, as_uint(source[i]) & 0x7fffffffu);
  const bool finite = largest < 0x7f800000u, zero = as_float(largest) < 0x1p-100f;
  const float scale = as_float(largest) / 127.0f;
  *vector->scale = !finite ? as_float(0x7fc00000u) : zero ? 0.0f : scale;
  for (uint i = 0; i < dim; ++i) vector->elements[i] = !finite || zero ? 0 : as_uchar(convert_char_sat_rte(source[i] / scale));
#endif
}

// Item (vector of a token, token): the keys of the KV heads, then the values.
kernel void append(global float* key, ulong key_offset, global float* value, ulong value_offset, uint key_stride,
                   uint value_stride, global uchar* key_cache, ulong key_cache_offset, global uchar* value_cache,
                   ulong value_cache_offset, ulong page_bytes, global uint* pages, ulong pages_offset, uint page_positions,
                   uint first_position, uint kv_heads, uint head_dim, uint value_dim, uint vectors) {
  const uint index = get_global_id(0), token = get_global_id(1);
  if (index >= vectors) return;
  const bool is_key = index < kv_heads;
  const uint head = is_key ? index : index - kv_heads, dim = is_key ? head_dim : value_dim;
  global float* const source = is_key ? FLOATS(key, key_offset) + (size_t)token * key_stride + (size_t)head * dim
                                      : FLOATS(value, value_offset) + (size_t)token * value_stride + (size_t)head * dim;
  global uchar* const cache = is_key ? key_cache + key_cache_offset : value_cache + value_cache_offset;
  const Cached target = find_vector(cache, WORDS(pages, pages_offset), page_bytes, page_positions, dim, head, first_position + token);
  put_vector(&target, source, dim);
}

// A work group is a head of a token. The keys that it sees are taken LANES at a time, one a lane; then a lane adds up every
// LANES-th element of the values.
kernel void attention(global float* query, ulong query_offset, global float* output, ulong output_offset, uint query_stride,
                      uint output_stride, global uchar* key_cache, ulong key_cache_offset, global uchar* value_cache,
                      ulong value_cache_offset, ulong page_bytes, global uint* pages, ulong pages_offset,
                      uint page_positions, uint first_position, uint heads, uint kv_heads, uint head_dim, uint value_dim,
                      uint window, float scale, uint values_in_keys, float soft_cap, uint logn_length, global float* sinks,
                      ulong sinks_offset, global float* slopes, ulong slopes_offset, local float* sums, local float* queries) {
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
  for (uint d = lane; d < value_dim; d += LANES) sums[d] = 0.0f;
  barrier(CLK_LOCAL_MEM_FENCE);
  // A sink is as a key that comes first and whose value is 0.
  float largest = sinks == 0 ? -INFINITY : FLOATS(sinks, sinks_offset)[head];
  float total = sinks == 0 ? 0.0f : 1.0f;

  for (uint block = begin / LANES * LANES; block < end; block += LANES) {
    const uint position = block + lane;
    float score = -INFINITY;
    if (position >= begin && position < end) {
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
    const uint first = max(begin, block) - block, last = min(end - block, (uint)LANES);
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
    FLOATS(output, output_offset)[(size_t)token * output_stride + (size_t)head * value_dim + d] = sums[d] / total;
  }
}
