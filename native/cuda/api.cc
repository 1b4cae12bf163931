#include "api.h"

#include "../platform/library.h"

namespace layerstream::cuda {

namespace {

struct Loaded {
  Api api;
  std::string error;
};

Loaded load() {
  Loaded loaded;
#if defined(_WIN32)
  const Library library("nvcuda.dll");
#else
  const Library library("libcuda.so.1");
#endif
  if (!library.loaded()) {
    loaded.error = "There is no NVIDIA driver (" + library.error() + "). Install the driver of your GPU; no toolkit is needed.";
    return loaded;
  }
#define LAYERSTREAM_FIND(name, symbol, parameters)                                      \
  loaded.api.name = reinterpret_cast<decltype(loaded.api.name)>(library.find(symbol)); \
  if (loaded.api.name == nullptr && loaded.error.empty()) loaded.error = "The NVIDIA driver is too old: it lacks " symbol ". Install a newer one.";
  LAYERSTREAM_CUDA_FUNCTIONS(LAYERSTREAM_FIND)
#undef LAYERSTREAM_FIND
  return loaded;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

}  // namespace

const Api* find_api() { return loaded().error.empty() ? &loaded().api : nullptr; }

const std::string& api_error() { return loaded().error; }

std::string version_text(int version) { return std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10); }

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
