#include "vector.cuh"

namespace layerstream::cuda {

VECTOR_KERNELS(kQ8, 8bit)
VECTOR_KERNELS(kQ4, 4bit)
VECTOR_KERNELS(kU2, uint2)
VECTOR_KERNELS(kU3, uint3)
VECTOR_KERNELS(kU4, uint4)
VECTOR_KERNELS(kU8, uint8)
VECTOR_KERNELS(kMxfp4, mxfp4)
VECTOR_KERNELS(kNf4, nf4)

}  // namespace layerstream::cuda
