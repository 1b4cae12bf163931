#if defined(__x86_64__) || defined(_M_X64)

#include "products.h"

namespace layerstream::cpu::vnni {

extern const FastProducts kProducts = {&kVectorKernels, &kMatrixKernels};

}  // namespace layerstream::cpu::vnni

#endif
