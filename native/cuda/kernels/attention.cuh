// Attention of tokens one by one: a block is some query heads of a KV head, for a token.
//
// Positions are divided into splits of kSplitPositions at fixed places. The four warps of a block take batches of eight
// keys of a split by turns; what they found is put together in the order of warps, and splits in ascending order: within
// the block that has seen all of them, or by the kernel merge_splits. Results are the same bits either way.
#pragma once

#include "attention_state.cuh"
#include "kv_cache.cuh"

namespace layerstream::cuda {

constexpr uint32_t kAttentionWarps = 4, kAttentionThreads = kAttentionWarps * kWarpThreads;
constexpr uint32_t kBatchKeys = 8;
constexpr uint32_t kChunkDims = 4 * kWarpThreads;  // elements that a warp loads at once

__device__ __forceinline__ uint32_t padded_dims(uint32_t dims) { return (dims + kChunkDims - 1) / kChunkDims * kChunkDims; }

// The block's dynamic shared memory, in floats.
template <uint32_t kHeads>
struct AttentionMemory {
  float* queries;    // [kHeads][padded head_dim]
  float* weights;    // [warp][key][kHeads], then [warp][kHeads]: corrections
  float* states;     // [warp][kHeads][2]
  float* parts;      // [warp][kHeads][padded value_dim]
  float* sums;       // [kHeads][padded value_dim]: of all splits so far

  __device__ AttentionMemory(uint32_t head_dim, uint32_t value_dim) {
    queries = reinterpret_cast<float*>(dynamic_shared());
    weights = queries + kHeads * padded_dims(head_dim);
    states = weights + kAttentionWarps * kHeads * (kBatchKeys + 1);
    parts = states + kAttentionWarps * kHeads * 2;
    sums = parts + kAttentionWarps * kHeads * padded_dims(value_dim);
  }
};

// Halves the sums that a lane has: lanes whose number has the bit kDistance keep the upper ones.
template <uint32_t kDistance, uint32_t kPairs>
__device__ __forceinline__ void fold_pairs(float (&sums)[kPairs]) {
  const bool upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (uint32_t i = 0; i < kDistance; ++i) {
    const float sent = upper ? sums[i] : sums[i + kDistance], kept = upper ? sums[i + kDistance] : sums[i];
    sums[i] = kept + __shfl_xor_sync(kAllLanes, sent, kDistance);
  }
  if constexpr (kDistance > 1) fold_pairs<kDistance / 2>(sums);
}

// Adds kPairs sums over the lanes of a warp: lane i gets that of pair i % kPairs.
template <uint32_t kPairs>
__device__ __forceinline__ float sum_pairs(float (&sums)[kPairs]) {
  fold_pairs<kPairs / 2>(sums);
  float sum = sums[0];
#pragma unroll
  for (uint32_t distance = kPairs; distance < kWarpThreads; distance *= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  return sum;
}

// What a warp has found in a split: lane 8 * h + k knows head h and key k of each batch.
template <uint32_t kHeads, uint32_t kChunks>
struct WarpSums {
  float largest, total;
  float values[kHeads][kChunks][4];
};

// The keys at [position, position + kBatchKeys), of which some are in [begin, end).
template <KvFormat kFormat, uint32_t kHeads, uint32_t kChunks>
__device__ __forceinline__ void add_batch(const AttentionArguments& arguments, const AttentionMemory<kHeads>& memory, uint32_t kv_head,
                                          uint32_t own, uint32_t begin, uint32_t end, uint32_t position, float scale, float slope,
                                          WarpSums<kHeads, kChunks>& found) {
  constexpr uint32_t kElementBytes = kFormat == KvFormat::kF32 ? 4 : kFormat == KvFormat::kBF16 ? 2 : 1;
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t positions = arguments.page_positions, head_dim = arguments.head_dim, stored_dim = arguments.stored_dim;
  const bool one_page = positions % kBatchKeys == 0;
  const uint32_t own_key = lane % kBatchKeys, own_head = lane / kBatchKeys % kHeads;

  // Keys that are not seen are others that are, with no weight.
  const auto seen = [&](uint32_t key) { return min(max(position + key, begin), end - 1); };
  const auto page_at = [&](uint32_t at) { return arguments.pages[at / positions] * arguments.page_bytes; };
  const size_t first_page = page_at(seen(0));
  const auto vectors_of = [&](const uint8_t* cache, uint32_t at, uint32_t dim) {
    return find_vectors<kFormat>(cache, one_page ? first_page : page_at(at), positions, dim, kv_head);
  };
  const auto find = [&](const uint8_t* cache, uint32_t key, uint32_t dim) {
    const uint32_t at = seen(key);
    return vectors_of(cache, at, dim).elements + size_t{at % positions} * dim * kElementBytes;
  };
  float key_scale = 1.0f, value_scale = 1.0f;
  if constexpr (kFormat == KvFormat::kQ8) {
    const uint32_t at = seen(own_key);
    key_scale = vectors_of(arguments.keys, at, head_dim).scales[at % positions];
    value_scale = vectors_of(arguments.values, at, stored_dim).scales[at % positions];
  }

  float sums[kHeads * kBatchKeys] = {};
  for (uint32_t first = 0; first < head_dim; first += kChunkDims) {
    const uint32_t d = first + 4 * lane;
    float4 keys[kBatchKeys];
#pragma unroll
    for (uint32_t key = 0; key < kBatchKeys; ++key) {
      keys[key] = load_four<kFormat>(find(arguments.keys, key, head_dim), d, head_dim, arguments.aligned);
    }
#pragma unroll
    for (uint32_t head = 0; head < kHeads; ++head) {
      const float4 query = *reinterpret_cast<const float4*>(memory.queries + head * padded_dims(head_dim) + d);
#pragma unroll
      for (uint32_t key = 0; key < kBatchKeys; ++key) {
        float& sum = sums[head * kBatchKeys + key];
        sum = fmaf(query.x, keys[key].x, sum);
        sum = fmaf(query.y, keys[key].y, sum);
        sum = fmaf(query.z, keys[key].z, sum);
        sum = fmaf(query.w, keys[key].w, sum);
      }
    }
  }
  float score = sum_pairs(sums) * key_scale * scale;
  if (arguments.soft_cap != 0.0f) score = arguments.soft_cap * hyperbolic_tangent(score / arguments.soft_cap);
  const uint32_t at = position + own_key;
  if (arguments.slopes != nullptr) score = fmaf(slope, static_cast<float>(static_cast<int32_t>(at - own)), score);
  if (at < begin || at >= end) score = -INFINITY;

  float largest = fmaxf(found.largest, score);
#pragma unroll
  for (uint32_t distance = 1; distance < kBatchKeys; distance *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  const float correction = rescale(found.largest, largest), weight = rescale(score, largest);
  found.largest = largest;
  found.total = fmaf(found.total, correction, weight);
  float* const weights = memory.weights + warp * kHeads * (kBatchKeys + 1);
  if (lane < kHeads * kBatchKeys) {
    weights[own_key * kHeads + own_head] = weight * value_scale;
    if (own_key == 0) weights[kBatchKeys * kHeads + own_head] = correction;
  }
  __syncwarp();
#pragma unroll
  for (uint32_t head = 0; head < kHeads; ++head) {
    const float factor = weights[kBatchKeys * kHeads + head];
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) found.values[head][chunk][i] *= factor;
    }
  }
#pragma unroll kChunks == 1 ? 4 : 2
  for (uint32_t key = 0; key < kBatchKeys; ++key) {
    const uint8_t* const vector = find(arguments.values, key, stored_dim);
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      const float4 value = load_four<kFormat>(vector, chunk * kChunkDims + 4 * lane, arguments.value_dim, arguments.aligned);
#pragma unroll
      for (uint32_t head = 0; head < kHeads; ++head) {
        const float own_weight = weights[key * kHeads + head];
        float(&sum)[4] = found.values[head][chunk];
        sum[0] = fmaf(own_weight, value.x, sum[0]);
        sum[1] = fmaf(own_weight, value.y, sum[1]);
        sum[2] = fmaf(own_weight, value.z, sum[2]);
        sum[3] = fmaf(own_weight, value.w, sum[3]);
      }
    }
  }
  __syncwarp();
}

// Leaves what the warp has found of a split where the block finds it.
template <uint32_t kHeads, uint32_t kChunks>
__device__ __forceinline__ void publish(const AttentionMemory<kHeads>& memory, uint32_t value_dim, const WarpSums<kHeads, kChunks>& found) {
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  float total = found.total;
#pragma unroll
  for (uint32_t distance = 1; distance < kBatchKeys; distance *= 2) total += __shfl_xor_sync(kAllLanes, total, distance);
  if (lane % kBatchKeys == 0 && lane / kBatchKeys < kHeads) {
    float* const state = memory.states + (warp * kHeads + lane / kBatchKeys) * 2;
    state[0] = found.largest;
    state[1] = total;
  }
#pragma unroll
  for (uint32_t head = 0; head < kHeads; ++head) {
#pragma unroll
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      float* const part = memory.parts + (warp * kHeads + head) * padded_dims(value_dim) + chunk * kChunkDims + 4 * lane;
      if (chunk * kChunkDims < value_dim) {
        const float(&sum)[4] = found.values[head][chunk];
        *reinterpret_cast<float4*>(part) = make_float4(sum[0], sum[1], sum[2], sum[3]);
      }
    }
  }
}

template <KvFormat kFormat, uint32_t kHeads, uint32_t kChunks>
__device__ __forceinline__ void attend(const AttentionArguments& arguments) {
  const AttentionMemory<kHeads> memory(arguments.head_dim, arguments.value_dim);
  const uint32_t lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const uint32_t token = blockIdx.x, group = arguments.heads / arguments.kv_heads, parts = (group + kHeads - 1) / kHeads;
  const uint32_t kv_head = blockIdx.y / parts, first_head = kv_head * group + blockIdx.y % parts * kHeads;
  const uint32_t heads = min(kHeads, (kv_head + 1) * group - first_head);
  const uint32_t head_dim = arguments.head_dim, value_dim = arguments.value_dim;
  const uint32_t own = arguments.first_position + token, end = own + 1;
  const uint32_t begin = arguments.window != 0 && end > arguments.window ? end - arguments.window : 0;
  const Splits seen = splits_of(arguments, token);
  // Of a grid with splits, this block's; else all.
  const bool whole = arguments.splits == 1;
  const uint32_t split_begin = whole ? seen.begin : seen.begin + blockIdx.z;
  if (!whole && split_begin >= seen.end) return;

  // The output may be the query.
  for (uint32_t i = threadIdx.x; i < kHeads * padded_dims(head_dim); i += kAttentionThreads) {
    const uint32_t head = i / padded_dims(head_dim), d = i % padded_dims(head_dim);
    const bool exists = head < heads && d < head_dim;
    memory.queries[i] =
        exists ? arguments.query[size_t{token} * arguments.query_stride + size_t{first_head + head} * head_dim + d] : 0.0f;
  }
  for (uint32_t i = threadIdx.x; i < kHeads * padded_dims(value_dim); i += kAttentionThreads) {
    const uint32_t head = i / padded_dims(value_dim), d = i % padded_dims(value_dim);
    memory.sums[i] = head < heads && d < value_dim ? first_sum(arguments, token, first_head + head, d) : 0.0f;
  }
  SoftmaxState states[kHeads];
#pragma unroll
  for (uint32_t head = 0; head < kHeads; ++head) states[head] = first_state(arguments, token, min(first_head + head, arguments.heads - 1));
  __syncthreads();
  float scale = arguments.scale;
  if (arguments.logn_length != 0 && end > arguments.logn_length) {
    scale *= logf(static_cast<float>(end)) / logf(static_cast<float>(arguments.logn_length));
  }
  const uint32_t own_head = min(first_head + lane / kBatchKeys % kHeads, first_head + heads - 1);
  const float slope = arguments.slopes == nullptr ? 0.0f : arguments.slopes[own_head];

  for (uint32_t split = split_begin; split < (whole ? seen.end : split_begin + 1); ++split) {
    WarpSums<kHeads, kChunks> found = {};
    found.largest = -INFINITY;
    const uint32_t last = min(end, (split + 1) * kSplitPositions);
    for (uint32_t position = split * kSplitPositions + warp * kBatchKeys; position < last; position += kAttentionWarps * kBatchKeys) {
      if (position + kBatchKeys <= begin) continue;
      add_batch<kFormat>(arguments, memory, kv_head, own, begin, end, position, scale, slope, found);
    }
    publish(memory, value_dim, found);
    __syncthreads();
#pragma unroll
    for (uint32_t head = 0; head < kHeads; ++head) {
      SoftmaxState part = {-INFINITY, 0.0f};
      SoftmaxFactors factors[kAttentionWarps];
      float largest = -INFINITY;
#pragma unroll
      for (uint32_t w = 0; w < kAttentionWarps; ++w) largest = fmaxf(largest, memory.states[(w * kHeads + head) * 2]);
#pragma unroll
      for (uint32_t w = 0; w < kAttentionWarps; ++w) {
        const float* const state = memory.states + (w * kHeads + head) * 2;
        factors[w].part = rescale(state[0], largest);
        part.total = fmaf(state[1], factors[w].part, part.total);
      }
      part.largest = largest;
      const SoftmaxFactors both = merge(states[head], part);
      float* const partial =
          arguments.partial + ((size_t{token} * arguments.heads + first_head + head) * arguments.splits + blockIdx.z) * (value_dim + 2);
      if (!whole && head < heads && threadIdx.x == 0) {
        partial[0] = part.largest;
        partial[1] = part.total;
      }
      for (uint32_t d = threadIdx.x; d < value_dim; d += kAttentionThreads) {
        float sum = 0.0f;
#pragma unroll
        for (uint32_t w = 0; w < kAttentionWarps; ++w) {
          sum = fmaf(memory.parts[(w * kHeads + head) * padded_dims(value_dim) + d], factors[w].part, sum);
        }
        float& all = memory.sums[head * padded_dims(value_dim) + d];
        all = merge(all, sum, both);
        if (!whole && head < heads) partial[2 + d] = sum;
      }
    }
    __syncthreads();
  }
  if (!whole) return;
#pragma unroll
  for (uint32_t head = 0; head < kHeads; ++head) {
    if (head >= heads) continue;
    for (uint32_t d = threadIdx.x; d < value_dim; d += kAttentionThreads) {
      leave(arguments, token, first_head + head, d, memory.sums[head * padded_dims(value_dim) + d], states[head]);
    }
  }
}

}  // namespace layerstream::cuda
