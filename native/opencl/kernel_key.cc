#include "kernel_key.h"

#include "context.h"

namespace layerstream::opencl {

namespace {

KernelSource elementwise(const char* name) { return {{"common.cl", "elementwise.cl"}, "", name}; }

std::string define(const char* name, uint32_t value) { return std::string(" -D ") + name + "=" + std::to_string(value); }

std::string kv_format(const KernelKey& key) {
  static_assert(kKvFormatCount == 3);
  return std::string("-D KV_") + kKvFormatNames[key.format] + "=1";
}

KernelSource split_attention(const KernelKey& key, const char* name) {
  const std::string options = kv_format(key) + define("LANES", kItems) + define("HEADS", key.tokens) + define("SPLIT", kSplitPositions);
  return {{"common.cl", "lanes.cl", "kv_cache.cl", "attention.cl"}, options, name};
}

KernelSource matrix(const KernelKey& key, const Context& context, const char* name) {
  std::string options = define("HOST_PROCESSOR", context.host_processor()) + define("WIDE", context.has_wide_words()) + define("SHORT_BLOCKS", key.short_blocks) +
                        define("STEP_BYTES", kFormatTraits[key.format].bits * 8) + define("ALIGNMENT", key.alignment) +
                        define("LANES", context.host_processor() ? 1 : kGpuLanes) + define("ROWS", rows_at_once(key.tokens)) + define("TOKENS", key.tokens);
  for (size_t each = 0; each < kFormatCount; ++each) {
    options += define((std::string("FORMAT_") + kFormatTraits[each].name).c_str(), each == key.format);
  }
  return {{"common.cl", "weights.cl", "ggml.cl", "wide.cl", "window.cl", "matmul.cl", "integers.cl"}, options, name};
}

}  // namespace

KernelSource source_of(const KernelKey& key, const Context& context) {
  switch (key.name) {
    case KernelName::kActivation:
      return elementwise("activation");
    case KernelName::kAppend:
      return {{"common.cl", "kv_cache.cl"}, kv_format(key), "append"};
    case KernelName::kAttend:
      return {{"common.cl", "kv_cache.cl", "attend.cl"}, kv_format(key) + define("QUERIES", key.tokens), "attend"};
    case KernelName::kAttention:
      return split_attention(key, "attention");
    case KernelName::kEmbed:
      return matrix(key, context, "embed");
    case KernelName::kGatherRows:
      return elementwise("gather_rows");
    case KernelName::kMatmul:
      return matrix(key, context, "matmul");
    case KernelName::kMergeSplits:
      return split_attention(key, "merge_splits");
    case KernelName::kMultiplyIntegers:
      return matrix(key, context, "multiply_integers");
    case KernelName::kNorm:
      return {{"common.cl", "lanes.cl", "norm.cl"}, define("LANES", kItems), "norm"};
    case KernelName::kPermute:
      return elementwise("permute");
    case KernelName::kPrepareIntegers:
      return matrix(key, context, "prepare_integers");
    case KernelName::kRope:
      return elementwise("rope");
    case KernelName::kScaleTokens:
      return elementwise("scale_tokens");
    case KernelName::kScatterAdd:
      return elementwise("scatter_add");
    case KernelName::kSoftCap:
      return elementwise("soft_cap");
  }
  return {};
}

}  // namespace layerstream::opencl
