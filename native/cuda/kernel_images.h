// The kernels as the build compiled them (tools/embed-cuda-kernels.cjs): for each source a fat binary, of which drivers
// take what suits the device.
#pragma once

#include <cstddef>

namespace layerstream::cuda {

struct KernelImage {
  const char* source;  // "matmul.cu"; null behind the last one
  const void* data;
  size_t bytes;
};

extern const KernelImage kKernelImages[];
// Of the compiler, as drivers number theirs: 13000 is 13.0. A driver may be older than that only by its minor version.
extern const int kKernelVersion;

}  // namespace layerstream::cuda
