// The attention kernels that there are, and the shared memory of their blocks (kernels/attention.cuh).
#pragma once

#include <cstdint>

namespace layerstream::cuda {

constexpr uint32_t kMostValueDims = 512;

struct AttentionShape {
  uint32_t heads;   // query heads of a block, which share a KV head
  uint32_t chunks;  // of 128 dimensions of a value: 1, 2 or 4
};

// `group` query heads share a KV head.
constexpr AttentionShape attention_shape(uint32_t group, uint32_t value_dim) {
  if (value_dim <= 128) return {group == 1 ? 1u : 4u, 1};
  return {4, value_dim <= 256 ? 2u : 4u};
}

constexpr uint64_t attention_shared_bytes(AttentionShape shape, uint32_t head_dim, uint32_t value_dim) {
  constexpr uint64_t kWarps = 4, kBatchKeys = 8, kChunk = 128;
  const auto padded = [](uint64_t dims) { return (dims + kChunk - 1) / kChunk * kChunk; };
  const uint64_t few = kWarps * shape.heads * (kBatchKeys + 3);
  return sizeof(float) * (shape.heads * padded(head_dim) + few + (kWarps + 1) * shape.heads * padded(value_dim));
}

// Of the kernels for many tokens (kernels/prompt.cuh).
struct PromptShape {
  uint32_t chunks;  // of 128 dimensions of a value, at most: 1 or 4
  uint32_t threads;
};

constexpr PromptShape prompt_shape(uint32_t value_dim) { return value_dim <= 128 ? PromptShape{1, 128} : PromptShape{4, 256}; }

}  // namespace layerstream::cuda
