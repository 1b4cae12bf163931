// The kernels as the build compiled them for AMD's GPUs: for each source a bundle with a code object a target, of which the
// runtime takes what suits the device.
#pragma once

#include "../cuda/kernel_images.h"

namespace layerstream::hip {

extern const cuda::KernelImage kKernelImages[];
// "gfx906, gfx1030"
extern const char* const kKernelTargets;

}  // namespace layerstream::hip
