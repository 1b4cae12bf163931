// Products of Precision::kFast for AVX-512 with VNNI and BF16. See functions.h about linkage in this folder.
#pragma once

#include "../kernels.h"

namespace layerstream::cpu::vnni {

extern const FastKernels kVectorKernels;
extern const FastKernels kMatrixKernels;
extern const FastProducts kProducts;

uint64_t peak_bf16(uint32_t iterations);

}  // namespace layerstream::cpu::vnni
