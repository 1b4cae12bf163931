#include "vector.cuh"

namespace layerstream::cuda {

VECTOR_KERNELS(kQ8_0, q8_0)
VECTOR_KERNELS(kQ4_0, q4_0)
VECTOR_KERNELS(kQ4_1, q4_1)
VECTOR_KERNELS(kQ5_0, q5_0)
VECTOR_KERNELS(kQ5_1, q5_1)
VECTOR_KERNELS(kQ2K, q2_k)
VECTOR_KERNELS(kQ3K, q3_k)
VECTOR_KERNELS(kQ4K, q4_k)
VECTOR_KERNELS(kQ5K, q5_k)
VECTOR_KERNELS(kQ6K, q6_k)

}  // namespace layerstream::cuda
