#include "api.h"

namespace layerstream::cuda {

std::string status_name(const Api& api, CUresult status) {
  const char* name = nullptr;
  if (api.cuGetErrorName(status, &name) == CUDA_SUCCESS && name != nullptr) return name;
  return "status " + std::to_string(status);
}

bool is_lost(CUresult status) {
  switch (status) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      // What a kernel did wrong: an address, an instruction, the stack.
      return status == CUDA_ERROR_ILLEGAL_ADDRESS || (status >= CUDA_ERROR_ASSERT && status <= CUDA_ERROR_LAUNCH_FAILED &&
                                                     status != 712 && status != 713);
  }
}

}  // namespace layerstream::cuda
