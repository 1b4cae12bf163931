// Attention of many tokens on tensor cores: a block is kPromptRows rows, query heads of tokens that share a KV head.
//
// Keys and values pass through shared memory in tiles at fixed positions, kPromptDims dimensions at a time; a warp has 16 rows and
// takes each tile in whole. A float enters a product as three bfloat16, whose sum it is exactly, an element of a cache in
// bf16 or 8 bits as one; of their products those are added, in float32, that are not beyond the last bit of the result. What
// a row does not see changes nothing of what it has, so its bits do not depend on the rows beside it.
#pragma once

#include "attention_state.cuh"
#include "kv_cache.cuh"

namespace layerstream::cuda {

constexpr uint32_t kWarpRows = 16, kPromptWarps = kPromptRows / kWarpRows;
// Fragments of eight rows are in different banks, of floats for every half of a warp.
constexpr uint32_t kQueryStride = kPromptDims + 8, kElementStride = kPromptDims + 8;
constexpr uint32_t kFloatParts = 3;

// kFormat: float32, or bf16, which stands for 8 bits too.
template <KvFormat kFormat>
struct PromptMemory {
  static constexpr uint32_t kParts = prompt_parts(kFormat), kKeys = prompt_keys(kFormat);
  float queries[kPromptRows * kQueryStride];
  uint16_t elements[kParts][kKeys * kElementStride];  // of keys, or of values
  const float* sources[kPromptRows];                  // of queries; null: no row
  const uint8_t* vectors[2][kKeys];                   // keys and values in the cache; null: not seen
  float scales[2][kKeys];                             // of those in 8 bits; else 1
};

// Which query head of which token a row of the grid is; the last one stands in for rows that do not exist.
struct RowPlace {
  uint32_t token, head;
  bool exists;
};

// A row as the four lanes know it that have elements of it.
struct PromptRow {
  RowPlace place;
  uint32_t begin, own;  // sees the positions [begin, own]
  float scale, slope;
  SoftmaxState state;
};

// The dimensions that are in shared memory, from `first` on.
__device__ __forceinline__ uint32_t dims_at_once(uint32_t dims, uint32_t first) { return min(dims - first, kPromptDims); }

// Each part is the upper half of what those before leave of a float.
template <uint32_t kParts>
__device__ __forceinline__ void split_pair(float low, float high, uint32_t (&parts)[kParts]) {
#pragma unroll
  for (uint32_t part = 0; part < kParts; ++part) {
    const uint32_t low_bits = __float_as_uint(low), high_bits = __float_as_uint(high);
    parts[part] = __byte_perm(low_bits, high_bits, 0x7632u);
    low -= __uint_as_float(low_bits & 0xffff0000u);
    high -= __uint_as_float(high_bits & 0xffff0000u);
  }
}

// A word of a fragment in all parts.
__device__ __forceinline__ void put_word(uint32_t (&fragment)[kFloatParts][4], uint32_t word, float low, float high) {
  uint32_t parts[kFloatParts];
  split_pair(low, high, parts);
#pragma unroll
  for (uint32_t part = 0; part < kFloatParts; ++part) fragment[part][word] = parts[part];
}

// Adds the products of 16 rows, in all parts, with a part of the elements for two fragments of eight columns.
template <uint32_t kPart>
__device__ __forceinline__ void multiply_parts(const uint32_t (&rows)[kFloatParts][4], const uint32_t (&columns)[4], float (&first)[4],
                                               float (&second)[4]) {
#pragma unroll
  for (uint32_t part = 0; part + kPart < kFloatParts; ++part) {
    multiply_brain_tile(first, rows[part], columns[0], columns[1]);
    multiply_brain_tile(second, rows[part], columns[2], columns[3]);
  }
}

// The same in all parts of the elements, of which `place` is what the lane has the address of.
template <KvFormat kFormat, bool kTransposed>
__device__ __forceinline__ void multiply_elements(const PromptMemory<kFormat>& memory, const uint32_t (&rows)[kFloatParts][4], uint32_t place,
                                                  float (&first)[4], float (&second)[4]) {
  uint32_t columns[4];
  load_matrices<kTransposed>(columns, memory.elements[0] + place);
  multiply_parts<0>(rows, columns, first, second);
  if constexpr (PromptMemory<kFormat>::kParts > 1) {
    load_matrices<kTransposed>(columns, memory.elements[1] + place);
    multiply_parts<1>(rows, columns, first, second);
    load_matrices<kTransposed>(columns, memory.elements[2] + place);
    multiply_parts<2>(rows, columns, first, second);
  }
}

// Where the tile's keys and values are that lie in [begin, end), by the first threads.
template <KvFormat kFormat>
__device__ __forceinline__ void find_tile(const AttentionArguments& arguments, uint32_t kv_head, uint32_t position, uint32_t begin, uint32_t end,
                                          PromptMemory<kFormat>& memory) {
  const uint32_t key = threadIdx.x, at = position + key, positions = arguments.page_positions;
  if (key >= PromptMemory<kFormat>::kKeys) return;
  const bool codes = kFormat == KvFormat::kBF16 && arguments.codes;
  const uint32_t element_bytes = kFormat == KvFormat::kF32 ? 4 : codes ? 1 : 2;
  const bool exists = at >= begin && at < end;
  const size_t page = exists ? arguments.pages[at / positions] * arguments.page_bytes : 0;
  const auto find = [&](uint32_t which, const uint8_t* cache, uint32_t dim) {
    const Vectors vectors = codes ? find_vectors<KvFormat::kQ8>(cache, page, positions, dim, kv_head)
                                  : find_vectors<kFormat>(cache, page, positions, dim, kv_head);
    memory.vectors[which][key] = exists ? vectors.elements + size_t{at % positions} * dim * element_bytes : nullptr;
    memory.scales[which][key] = codes && exists ? vectors.scales[at % positions] : 1.0f;
  };
  find(0, arguments.keys, arguments.head_dim);
  find(1, arguments.values, arguments.stored_dim);
}

template <KvFormat kFormat, KvFormat kCached, uint32_t kThreads, bool kAligned>
__device__ __forceinline__ void load_quads(uint32_t which, uint32_t dim, uint32_t first, uint32_t quad, PromptMemory<kFormat>& memory) {
  using Memory = PromptMemory<kFormat>;
  constexpr uint32_t kQuads = kPromptDims / 4;
#pragma unroll kAligned ? 8 : 1
  for (uint32_t key = threadIdx.x / kQuads; key < Memory::kKeys; key += kThreads / kQuads) {
    const uint8_t* const vector = memory.vectors[which][key];
    float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (vector != nullptr) four = load_four<kCached>(vector, first + 4 * quad, dim, kAligned);
    uint32_t low[Memory::kParts], high[Memory::kParts];
    split_pair(four.x, four.y, low);
    split_pair(four.z, four.w, high);
#pragma unroll
    for (uint32_t part = 0; part < Memory::kParts; ++part) {
      uint2 words;
      words.x = low[part];
      words.y = high[part];
      *reinterpret_cast<uint2*>(memory.elements[part] + key * kElementStride + 4 * quad) = words;
    }
  }
}

// Keys (0) or values (1) of the tile, `dim` elements each, from dimension `first` on; whole sixteens, zeros behind the last.
template <KvFormat kFormat, uint32_t kThreads>
__device__ __forceinline__ void load_elements(const AttentionArguments& arguments, uint32_t which, uint32_t dim, uint32_t first,
                                              PromptMemory<kFormat>& memory) {
  const uint32_t quad = threadIdx.x % (kPromptDims / 4), dims = (dims_at_once(dim, first) + 15) / 16 * 16;
  if (4 * quad >= dims) return;
  if (kFormat == KvFormat::kBF16 && arguments.codes) {
    if (arguments.aligned) return load_quads<kFormat, KvFormat::kQ8, kThreads, true>(which, dim, first, quad, memory);
    return load_quads<kFormat, KvFormat::kQ8, kThreads, false>(which, dim, first, quad, memory);
  }
  if (arguments.aligned) return load_quads<kFormat, kFormat, kThreads, true>(which, dim, first, quad, memory);
  load_quads<kFormat, kFormat, kThreads, false>(which, dim, first, quad, memory);
}

template <KvFormat kFormat, uint32_t kThreads>
__device__ __forceinline__ void load_queries(const AttentionArguments& arguments, uint32_t first, PromptMemory<kFormat>& memory) {
  const uint32_t d = threadIdx.x % kPromptDims, dims = (dims_at_once(arguments.head_dim, first) + 15) / 16 * 16;
  if (d >= dims) return;
#pragma unroll 4
  for (uint32_t row = threadIdx.x / kPromptDims; row < kPromptRows; row += kThreads / kPromptDims) {
    const float* const source = memory.sources[row];
    const bool exists = source != nullptr && first + d < arguments.head_dim;
    memory.queries[row * kQueryStride + d] = exists ? source[first + d] : 0.0f;
  }
}

// Adds to the scores of the warp's rows what `dims` dimensions give for the first 16 * `key_pairs` keys of the tile.
template <KvFormat kFormat>
__device__ __forceinline__ void add_scores(const PromptMemory<kFormat>& memory, uint32_t warp_row, uint32_t dims, uint32_t key_pairs,
                                           float (&scores)[PromptMemory<kFormat>::kKeys / 8][4]) {
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const float* const queries = memory.queries + (warp_row + lane / 4) * kQueryStride + 2 * (lane % 4);
  const uint32_t place = (lane / 16 * 8 + lane % 8) * kElementStride + lane / 8 % 2 * 8;
  for (uint32_t k = 0; k < dims; k += 16) {
    uint32_t rows[kFloatParts][4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const float2 two = *reinterpret_cast<const float2*>(queries + i % 2 * 8 * kQueryStride + k + i / 2 * 8);
      put_word(rows, i, two.x, two.y);
    }
#pragma unroll
    for (uint32_t n = 0; n < PromptMemory<kFormat>::kKeys / 16; ++n) {
      if (n >= key_pairs) break;
      multiply_elements<kFormat, false>(memory, rows, place + n * 16 * kElementStride + k, scores[2 * n], scores[2 * n + 1]);
    }
  }
}

// Few models have it, and its divisions are long.
__device__ __noinline__ float cap_score(float score, float cap) { return cap * hyperbolic_tangent(score / cap); }

// Turns the scores of a row of the warp, `half` of each fragment, into weights, scaled as the values are; returns what the sums of
// the tiles before are multiplied by.
template <KvFormat kFormat>
__device__ __forceinline__ float weigh(const AttentionArguments& arguments, const PromptMemory<kFormat>& memory, uint32_t position,
                                       uint32_t key_pairs, uint32_t half, PromptRow& row, float (&scores)[PromptMemory<kFormat>::kKeys / 8][4]) {
  constexpr uint32_t kFragments = PromptMemory<kFormat>::kKeys / 8;
  const uint32_t first_key = threadIdx.x % 4 * 2;
  float largest = row.state.largest;
#pragma unroll
  for (uint32_t n = 0; n < kFragments; ++n) {
    if (n >= 2 * key_pairs) break;
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t key = 8 * n + first_key + i, at = position + key;
      float score = scores[n][2 * half + i];
      if constexpr (kFormat == KvFormat::kBF16) score *= memory.scales[0][key];
      score *= row.scale;
      if (arguments.soft_cap != 0.0f) score = cap_score(score, arguments.soft_cap);
      if (arguments.slopes != nullptr) score = fmaf(row.slope, static_cast<float>(static_cast<int32_t>(at - row.own)), score);
      if (at < row.begin || at > row.own) score = -INFINITY;
      scores[n][2 * half + i] = score;
      largest = fmaxf(largest, score);
    }
  }
#pragma unroll
  for (uint32_t distance = 1; distance < 4; distance *= 2) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  float total = 0.0f;
#pragma unroll
  for (uint32_t n = 0; n < kFragments; ++n) {
    if (n >= 2 * key_pairs) break;
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      float& score = scores[n][2 * half + i];
      score = rescale(score, largest);
      total += score;
      // What is not seen may have no scale.
      if constexpr (kFormat == KvFormat::kBF16) score = score == 0.0f ? 0.0f : score * memory.scales[1][8 * n + first_key + i];
    }
  }
#pragma unroll
  for (uint32_t distance = 1; distance < 4; distance *= 2) total += __shfl_xor_sync(kAllLanes, total, distance);
  const float correction = rescale(row.state.largest, largest);
  row.state = {largest, fmaf(row.state.total, correction, total)};
  return correction;
}

// Adds the tile's values, of which dimensions [first_dim, dims) are the warp's, weighted.
template <KvFormat kFormat, uint32_t kFragments>
__device__ __forceinline__ void add_values(const PromptMemory<kFormat>& memory, uint32_t first_dim, uint32_t dims, uint32_t key_pairs,
                                           const float (&weights)[PromptMemory<kFormat>::kKeys / 8][4], float (&sums)[kFragments][4]) {
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t place = (lane / 8 % 2 * 8 + lane % 8) * kElementStride + first_dim + lane / 16 * 8;
#pragma unroll
  for (uint32_t n = 0; n < PromptMemory<kFormat>::kKeys / 16; ++n) {
    if (n >= key_pairs) break;
    // The sums of a product are, two by two, a factor of the next one.
    uint32_t rows[kFloatParts][4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) put_word(rows, i, weights[2 * n + i / 2][i % 2 * 2], weights[2 * n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (uint32_t d = 0; d < kFragments; d += 2) {
      if (first_dim + 8 * d >= dims) break;
      multiply_elements<kFormat, true>(memory, rows, place + n * 16 * kElementStride + 8 * d, sums[d], sums[d + 1]);
    }
  }
}

__device__ __forceinline__ RowPlace place_of_row(const AttentionArguments& arguments, uint32_t kv_head, uint32_t index) {
  const uint32_t group = arguments.heads / arguments.kv_heads, rows = arguments.tokens * group, row = min(index, rows - 1);
  return {row / group, kv_head * group + row % group, index < rows};
}

__device__ __forceinline__ uint32_t begin_of(const AttentionArguments& arguments, uint32_t own) {
  return arguments.window != 0 && own + 1 > arguments.window ? own + 1 - arguments.window : 0;
}

__device__ __forceinline__ PromptRow prompt_row(const AttentionArguments& arguments, RowPlace place) {
  PromptRow row;
  row.place = place;
  row.own = arguments.first_position + place.token;
  row.begin = begin_of(arguments, row.own);
  row.scale = arguments.scale;
  if (arguments.logn_length != 0 && row.own + 1 > arguments.logn_length) {
    row.scale *= logf(static_cast<float>(row.own + 1)) / logf(static_cast<float>(arguments.logn_length));
  }
  row.slope = arguments.slopes == nullptr ? 0.0f : arguments.slopes[place.head];
  row.state = first_state(arguments, place.token, place.head);
  return row;
}

// Values have up to kChunks * kPromptDims dimensions, which kSides warps share that have the same rows.
template <KvFormat kFormat, uint32_t kChunks, uint32_t kSides>
__device__ __forceinline__ void attend_prompt(const AttentionArguments& arguments) {
  using Memory = PromptMemory<kFormat>;
  static_assert(sizeof(Memory) == prompt_shared_bytes(kFormat));
  constexpr uint32_t kThreads = kPromptWarps * kSides * kWarpThreads, kSideDims = kPromptDims / kSides, kFragments = kSideDims / 8;
  Memory& memory = *reinterpret_cast<Memory*>(dynamic_shared());
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t warp_row = warp % kPromptWarps * kWarpRows, side_dim = warp / kPromptWarps * kSideDims;
  const uint32_t head_dim = arguments.head_dim, value_dim = arguments.value_dim, kv_head = blockIdx.y;
  // The last rows see the most: they come first.
  const uint32_t all_rows = arguments.tokens * (arguments.heads / arguments.kv_heads), blocks = (all_rows + kPromptRows - 1) / kPromptRows;
  const uint32_t block_row = (blocks - 1 - blockIdx.x) * kPromptRows;

  PromptRow rows[2];
  float sums[kChunks][kFragments][4];
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    const RowPlace place = place_of_row(arguments, kv_head, block_row + warp_row + 8 * half + lane / 4);
    rows[half] = prompt_row(arguments, place);
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (uint32_t i = 0; i < 2 * kFragments; ++i) {
        const uint32_t d = chunk * kPromptDims + side_dim + i / 2 * 8 + lane % 4 * 2 + i % 2;
        sums[chunk][i / 2][2 * half + i % 2] = place.exists && d < value_dim ? first_sum(arguments, place.token, place.head, d) : 0.0f;
      }
    }
  }
  if (threadIdx.x < kPromptRows) {
    const RowPlace place = place_of_row(arguments, kv_head, block_row + threadIdx.x);
    const float* const source = arguments.query + size_t{place.token} * arguments.query_stride + size_t{place.head} * head_dim;
    memory.sources[threadIdx.x] = place.exists ? source : nullptr;
  }

  // What some row of the block sees in this part, and some row of the warp.
  const auto range_of = [&](uint32_t first, uint32_t count) {
    const RowPlace begins = place_of_row(arguments, kv_head, block_row + first), ends = place_of_row(arguments, kv_head, block_row + first + count - 1);
    const uint32_t last = arguments.first_position + ends.token;
    const uint32_t begin = max(begin_of(arguments, arguments.first_position + begins.token), arguments.part_begin * kSplitPositions);
    const uint32_t end = last / kSplitPositions < arguments.part_end ? last + 1 : arguments.part_end * kSplitPositions;
    return Splits{begin, begins.exists ? end : begin};
  };
  const Splits seen = range_of(0, kPromptRows), own = range_of(warp_row, kWarpRows);
  for (uint32_t position = seen.begin / Memory::kKeys * Memory::kKeys; position < seen.end; position += Memory::kKeys) {
    __syncthreads();
    find_tile(arguments, kv_head, position, seen.begin, seen.end, memory);
    __syncthreads();
    const uint32_t end = min(own.end, position + Memory::kKeys);
    const bool sees = own.begin < end && end > position;
    const uint32_t key_pairs = sees ? (end - position + 15) / 16 : 0;
    float scores[Memory::kKeys / 8][4] = {};
    for (uint32_t first = 0; first < head_dim; first += kPromptDims) {
      if (first > 0) __syncthreads();
      if (head_dim > kPromptDims || position <= seen.begin) load_queries<kFormat, kThreads>(arguments, first, memory);
      load_elements<kFormat, kThreads>(arguments, 0, head_dim, first, memory);
      __syncthreads();
      add_scores(memory, warp_row, dims_at_once(head_dim, first), key_pairs, scores);
    }
    if (sees) {
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const float correction = weigh(arguments, memory, position, key_pairs, half, rows[half], scores);
#pragma unroll
        for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
          for (uint32_t i = 0; i < 2 * kFragments; ++i) sums[chunk][i / 2][2 * half + i % 2] *= correction;
        }
      }
    }
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      const uint32_t first = chunk * kPromptDims;
      if (first >= value_dim) break;
      __syncthreads();
      load_elements<kFormat, kThreads>(arguments, 1, value_dim, first, memory);
      __syncthreads();
      add_values<kFormat, kFragments>(memory, side_dim, dims_at_once(value_dim, first), key_pairs, scores, sums[chunk]);
    }
  }

  // Both sides have read the state.
  __syncthreads();
#pragma unroll
  for (uint32_t half = 0; half < 2; ++half) {
    const RowPlace place = rows[half].place;
    if (!place.exists) continue;
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (uint32_t i = 0; i < 2 * kFragments; ++i) {
        const uint32_t d = chunk * kPromptDims + side_dim + i / 2 * 8 + lane % 4 * 2 + i % 2;
        if (d < value_dim) leave(arguments, place.token, place.head, d, sums[chunk][i / 2][2 * half + i % 2], rows[half].state);
      }
    }
  }
}

}  // namespace layerstream::cuda
