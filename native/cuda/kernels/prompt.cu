#include "prompt.cuh"

namespace layerstream::cuda {

// Named by the cache (in float32, or in bf16 or 8 bits) and chunks of 128 dimensions of a value. Few: compilers take long for them.
KERNEL(prompt_floats_1, AttentionArguments, 128, 3) { attend_prompt<KvFormat::kF32, 1, 1>(arguments); }
KERNEL(prompt_floats_4, AttentionArguments, 256, 1) { attend_prompt<KvFormat::kF32, 4, 2>(arguments); }
KERNEL(prompt_halves_1, AttentionArguments, 128, 3) { attend_prompt<KvFormat::kBF16, 1, 1>(arguments); }
KERNEL(prompt_halves_4, AttentionArguments, 256, 1) { attend_prompt<KvFormat::kBF16, 4, 2>(arguments); }

}  // namespace layerstream::cuda
