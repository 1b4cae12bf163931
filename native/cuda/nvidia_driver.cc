// NVIDIA's driver.
#include "../platform/library.h"
#include "driver.h"

namespace layerstream::cuda {

namespace {

// Turing: what the oldest kernels are compiled for.
constexpr int kLeastCapability = 75;
constexpr int kVersionsOfMajor = 1000;

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

const Api* find() { return loaded().error.empty() ? &loaded().api : nullptr; }

const std::string& error() { return loaded().error; }

const char* call_name(const char* function) { return function; }

std::string initialization(CUresult status) {
  if (status == CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) return "Its parts are of different versions: restart the system, or install it again.";
  if (status == CUDA_ERROR_STUB_LIBRARY) return "What was loaded is a toolkit's stub: take it off the library path.";
  return {};
}

std::string version_text(int version) { return std::to_string(version / 1000) + '.' + std::to_string(version % 1000 / 10); }

std::string refused(const std::string& name, int version, const std::string& detail) {
  const std::string needed = version_text(kKernelVersion);
  return "The driver of " + name + " supports CUDA " + version_text(version) + ", and the kernels are for CUDA " + needed + detail +
         ". Install a driver for CUDA " + needed + " or newer, or use --device opencl.";
}

std::string unsuitable(const Api& api, CUdevice device, const std::string& name, int version) {
  int major = 0, minor = 0;
  check_call(nvidia_driver(), api, api.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device), "cuDeviceGetAttribute");
  check_call(nvidia_driver(), api, api.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device), "cuDeviceGetAttribute");
  if (10 * major + minor < kLeastCapability) {
    return name + " has compute capability " + std::to_string(major) + '.' + std::to_string(minor) + ", and 7.5 is needed. Use --device opencl.";
  }
  return version / kVersionsOfMajor < kKernelVersion / kVersionsOfMajor ? refused(name, version, {}) : std::string();
}

}  // namespace

const Driver& nvidia_driver() {
  static const Driver driver = {
      .backend = "cuda",
      .name = "CUDA",
      .called = "The NVIDIA driver",
      .call_name = call_name,
      .find = find,
      .error = error,
      .images = kKernelImages,
      .no_images = "This layerstream was built where NVIDIA's compiler was not installed, so it has no kernels for CUDA. Install nvcc (the "
                   "CUDA toolkit) and run: npx layerstream build --force",
      .no_device = "The NVIDIA driver finds no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES if it is set.",
      .remedy = "See whether nvidia-smi works; restart the system, or install the driver again.",
      .initialization = initialization,
      .version_text = version_text,
      .unsuitable = unsuitable,
      .refused = refused,
      .graphs = true,
  };
  return driver;
}

}  // namespace layerstream::cuda
