#include "vector.cuh"

namespace layerstream::cuda {

VECTOR_KERNELS(kF32, f32)
VECTOR_KERNELS(kF16, f16)
VECTOR_KERNELS(kBF16, bf16)
VECTOR_KERNELS(kFp8, fp8)
VECTOR_KERNELS(kBF16Window, bf16_window)

}  // namespace layerstream::cuda
