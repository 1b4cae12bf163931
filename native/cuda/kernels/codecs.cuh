// All codecs, and the choice among them at run time.
#pragma once

#include "ggml.cuh"
#include "ggml_k.cuh"
#include "packed.cuh"
#include "plain.cuh"
#include "window.cuh"

namespace layerstream::cuda {

// Calls work with the codec of the format. All threads of a block have the same.
template <class Work>
__device__ __forceinline__ void with_codec(Format format, Work&& work) {
  switch (format) {
#define CASE(name) \
  case Format::name: \
    return work(Codec<Format::name>());
    CASE(kF32) CASE(kF16) CASE(kBF16) CASE(kQ8) CASE(kQ4) CASE(kU2) CASE(kU3) CASE(kU4) CASE(kU8) CASE(kFp8) CASE(kMxfp4)
    CASE(kNf4) CASE(kQ8_0) CASE(kQ4_0) CASE(kQ4_1) CASE(kQ5_0) CASE(kQ5_1) CASE(kQ2K) CASE(kQ3K) CASE(kQ4K) CASE(kQ5K)
    CASE(kQ6K) CASE(kBF16Window)
#undef CASE
    case Format::kCount:
      return;
  }
}

}  // namespace layerstream::cuda
