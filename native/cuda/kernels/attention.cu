#include "attention.cuh"

namespace layerstream::cuda {

// Named by the format of the cache, query heads of a block, and chunks of 128 dimensions of a value.
#define ATTENTION_KERNELS(format, suffix)                                                                         \
  KERNEL(attention_##suffix##_1_1, AttentionArguments, kAttentionThreads, 3) { attend<KvFormat::format, 1, 1>(arguments); } \
  KERNEL(attention_##suffix##_4_1, AttentionArguments, kAttentionThreads, 3) { attend<KvFormat::format, 4, 1>(arguments); } \
  KERNEL(attention_##suffix##_4_2, AttentionArguments, kAttentionThreads, 2) { attend<KvFormat::format, 4, 2>(arguments); } \
  KERNEL(attention_##suffix##_4_4, AttentionArguments, kAttentionThreads, 2) { attend<KvFormat::format, 4, 4>(arguments); }

ATTENTION_KERNELS(kF32, f32)
ATTENTION_KERNELS(kBF16, bf16)
ATTENTION_KERNELS(kQ8, 8bit)

// Splits in ascending order, as a block that sees all of them: block (token, head).
KERNEL(merge_splits, AttentionArguments, kAttentionThreads, 1) {
  const uint32_t token = blockIdx.x, head = blockIdx.y, value_dim = arguments.value_dim;
  const Splits seen = splits_of(arguments, token);
  const uint32_t splits = seen.end > seen.begin ? seen.end - seen.begin : 0;
  const float* const partial = arguments.partial + (size_t{token} * arguments.heads + head) * arguments.splits * (value_dim + 2);
  const SoftmaxState first = first_state(arguments, token, head);
  __syncthreads();
  for (uint32_t d = threadIdx.x; d < value_dim; d += kAttentionThreads) {
    SoftmaxState state = first;
    float sum = first_sum(arguments, token, head, d);
    for (uint32_t split = 0; split < splits; ++split) {
      const float* const part = partial + size_t{split} * (value_dim + 2);
      sum = merge(sum, part[2 + d], merge(state, {part[0], part[1]}));
    }
    leave(arguments, token, head, d, sum, state);
  }
}

}  // namespace layerstream::cuda
