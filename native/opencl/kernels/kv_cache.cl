// Keys and values on their way into the cache, and out of it (backend/kv_format.h). Built with
//   KV_f32, KV_bf16 or KV_8bit   1 for the format of the cache

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

// What attention knows of a head of a token, between two parts (AttentionOp::state).
#define STATE(state, offset, token, heads, head, value_dim) \
  (FLOATS(state, offset) + ((size_t)(token) * (heads) + (head)) * ((size_t)(value_dim) + 2))

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
