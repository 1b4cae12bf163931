// What the driver calls its statuses.
#include "../../../native/cuda/api.h"

using namespace layerstream::cuda;

extern "C" __attribute__((visibility("default"))) CUresult cuGetErrorName(CUresult status, const char** name) {
  switch (status) {
#define NAME(status) \
  case status:       \
    *name = #status; \
    return CUDA_SUCCESS;
    NAME(CUDA_ERROR_INVALID_VALUE)
    NAME(CUDA_ERROR_OUT_OF_MEMORY)
    NAME(CUDA_ERROR_NO_DEVICE)
    NAME(CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
    NAME(CUDA_ERROR_ILLEGAL_ADDRESS)
    NAME(CUDA_ERROR_LAUNCH_FAILED)
    NAME(CUDA_ERROR_UNKNOWN)
#undef NAME
    default:
      *name = nullptr;
      return CUDA_ERROR_INVALID_VALUE;
  }
}
