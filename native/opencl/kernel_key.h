// Which kernel a launch needs, and what it is built from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../backend/format.h"
#include "../backend/kv_format.h"
#include "../backend/ops.h"

namespace layerstream::opencl {

class Context;

enum class KernelName : uint8_t {
  kActivation, kAppend, kAttend, kAttention, kEmbed, kGatherRows, kMatmul, kMergeSplits, kMultiplyIntegers, kNorm, kPermute,
  kPrepareIntegers, kRope, kScaleTokens, kScatterAdd, kSoftCap,
};

// Kernels of one key are the same.
struct KernelKey {
  KernelName name;
  uint8_t format = 0;        // of weights, or of the KV cache
  uint8_t tokens = 1;        // that are multiplied at once, or queries or heads that are treated at once
  uint8_t alignment = 1;     // of rows, in bytes: 1, 4 or 16
  bool short_blocks = false;  // 64 columns may have several scales

  uint64_t number() const {
    return static_cast<uint64_t>(name) | uint64_t{format} << 8 | uint64_t{tokens} << 16 | uint64_t{alignment} << 24 | uint64_t{short_blocks} << 32;
  }
};

// Items that share a row of a product, and those that share a row or a head of other kernels.
constexpr uint32_t kGpuLanes = 32;
constexpr uint32_t kItems = 64;

// Attention of GPUs: positions of a split, and bytes of what splits come to before they are merged, at most.
constexpr uint32_t kSplitPositions = 128;
constexpr uint64_t kSplitBytes = 1 << 20;
static_assert(kAttentionPartPositions % kSplitPositions == 0);

// Rows that are multiplied with so many tokens at once: sums are in registers.
constexpr uint32_t rows_at_once(uint32_t tokens) { return tokens > 1 ? 2 : 4; }

struct KernelSource {
  std::vector<const char*> files;
  std::string options;
  const char* name;
};

KernelSource source_of(const KernelKey& key, const Context& context);

}  // namespace layerstream::opencl
