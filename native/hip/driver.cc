// HIP's runtime in the place of CUDA's driver.
#include <algorithm>
#include <string_view>

#include "../cuda/driver.h"
#include "../platform/library.h"
#include "../platform/memory.h"
#include "device.h"
#include "functions.h"
#include "kernel_images.h"

namespace layerstream::hip {

namespace {

using namespace cuda;

// Where granules are pages, mapping a few GiB would take millions of calls.
constexpr size_t kLeastGranule = 2 << 20;

struct Loaded {
  Api hip;  // as the runtime has it
  Api api;  // as the device calls it
  GetErrorName* hipGetErrorName = nullptr;
  SetDevice* hipSetDevice = nullptr;
  std::string error;
};

Loaded load();
const Driver& driver();

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

// Some versions find no device 0 where there is none.
CUresult initialize(unsigned flags) {
  const CUresult status = loaded().hip.cuInit(flags);
  return status == kInvalidDevice ? CUDA_ERROR_NO_DEVICE : status;
}

CUresult get_error_name(CUresult status, const char** name) {
  *name = loaded().hipGetErrorName(status);
  return CUDA_SUCCESS;
}

// Compute capabilities are NVIDIA's: AMD's numbers say nothing about the instructions that kernels choose by them.
CUresult get_attribute(int* value, int attribute, CUdevice device) {
  const auto get = [&](int which) { return loaded().hip.cuDeviceGetAttribute(value, which, device); };
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      return get(kMultiprocessorCount);
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      return get(kMaxSharedMemoryPerBlock);
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
      if (get(kVirtualMemoryManagementSupported) != CUDA_SUCCESS) *value = 0;
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// A device's context is the device, of which threads have a current one.
CUresult retain_context(CUcontext* context, CUdevice device) {
  *context = reinterpret_cast<CUcontext>(static_cast<uintptr_t>(device) + 1);
  return CUDA_SUCCESS;
}

CUresult release_context(CUdevice) { return CUDA_SUCCESS; }

CUresult set_context(CUcontext context) {
  return loaded().hipSetDevice(static_cast<int>(reinterpret_cast<uintptr_t>(context) - 1));
}

// Blocks get all the shared memory that there is without being asked.
CUresult set_function_attribute(CUfunction, int, int) { return CUDA_SUCCESS; }

// Whether memory can be mapped: some devices say so and fail.
bool maps(size_t granule, const CUmemAllocationProp* properties) {
  const Api& hip = loaded().hip;
  CUdeviceptr address = 0;
  CUmemGenericAllocationHandle handle = 0;
  if (hip.cuMemAddressReserve(&address, granule, 0, 0, 0) != CUDA_SUCCESS) return false;
  bool works = false;
  if (hip.cuMemCreate(&handle, granule, properties, 0) == CUDA_SUCCESS) {
    if (hip.cuMemMap(address, granule, 0, handle, 0) == CUDA_SUCCESS) {
      const CUmemAccessDesc access{properties->location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
      works = hip.cuMemSetAccess(address, granule, &access, 1) == CUDA_SUCCESS;
      works = hip.cuMemUnmap(address, granule) == CUDA_SUCCESS && works;
    }
    hip.cuMemRelease(handle);
  }
  hip.cuMemAddressFree(address, granule);
  return works;
}

// 0 where nothing can be mapped.
CUresult get_granularity(size_t* bytes, const CUmemAllocationProp* properties, int option) {
  const CUresult status = loaded().hip.cuMemGetAllocationGranularity(bytes, properties, option);
  const bool usable = status == CUDA_SUCCESS && *bytes > 0;
  *bytes = usable ? align_up(kLeastGranule, *bytes) : 0;
  if (usable && !maps(*bytes, properties)) *bytes = 0;
  return CUDA_SUCCESS;
}

Loaded load() {
  Loaded loaded;
#if defined(_WIN32)
  const Library library("amdhip64_7.dll", "amdhip64_6.dll", "amdhip64.dll");
#else
  const Library library("libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "/opt/rocm/lib/libamdhip64.so");
#endif
  if (!library.loaded()) {
    loaded.error = "There is no HIP runtime (" + library.error() + "). For a GPU of AMD, install the ROCm runtime (libamdhip64), or use --device opencl.";
    return loaded;
  }
  const auto find = [&](auto*& function, const char* symbol) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(library.find(symbol));
    if (function == nullptr && loaded.error.empty()) {
      loaded.error = std::string("The HIP runtime is too old: it lacks ") + symbol + ". Install HIP 5.2 or newer.";
    }
  };
#define LAYERSTREAM_FIND(name, symbol) find(loaded.hip.name, #symbol);
  LAYERSTREAM_HIP_FUNCTIONS(LAYERSTREAM_FIND)
#undef LAYERSTREAM_FIND
  find(loaded.hipGetErrorName, "hipGetErrorName");
  find(loaded.hipSetDevice, "hipSetDevice");
  loaded.api = loaded.hip;
  loaded.api.cuInit = initialize;
  loaded.api.cuGetErrorName = get_error_name;
  loaded.api.cuDeviceGetAttribute = get_attribute;
  loaded.api.cuDevicePrimaryCtxRetain = retain_context;
  loaded.api.cuDevicePrimaryCtxRelease = release_context;
  loaded.api.cuCtxSetCurrent = set_context;
  loaded.api.cuFuncSetAttribute = set_function_attribute;
  loaded.api.cuMemGetAllocationGranularity = get_granularity;
  return loaded;
}

const Api* find() { return loaded().error.empty() ? &loaded().api : nullptr; }

const std::string& error() { return loaded().error; }

const char* call_name(const char* function) {
#define LAYERSTREAM_NAME(name, symbol) \
  if (std::string_view(function) == #name) return #symbol;
  LAYERSTREAM_HIP_FUNCTIONS(LAYERSTREAM_NAME)
#undef LAYERSTREAM_NAME
  return std::string_view(function) == "cuCtxSetCurrent" ? "hipSetDevice" : function;
}

std::string initialization(CUresult) { return {}; }

std::string version_text(int version) {
  return std::to_string(version / kVersionsOfMajor) + '.' + std::to_string(version % kVersionsOfMajor / kVersionsOfMinor);
}

std::string refused(const std::string& name, int version, const std::string& detail) {
  return "HIP " + version_text(version) + " takes none of the kernels for " + name + detail + ": they are for " + kKernelTargets +
         ". Use --device opencl.";
}

// Which targets a device takes shows when the kernels are loaded. They have warps of 32 threads, of which hardware may run two as one.
std::string unsuitable(const Api& api, CUdevice device, const std::string& name, int) {
  int threads = 0;
  check_call(driver(), api, loaded().hip.cuDeviceGetAttribute(&threads, kWarpSize, device), "cuDeviceGetAttribute");
  if (threads == 32 || threads == 64) return {};
  return name + " runs " + std::to_string(threads) + " threads at once, and the kernels need 32 or 64. Use --device opencl.";
}

const Driver& driver() {
  static const Driver driver = {
      .backend = "hip",
      .name = "HIP",
      .called = "The HIP runtime",
      .call_name = call_name,
      .find = find,
      .error = error,
      .images = kKernelImages,
      .no_images = "This layerstream was built where AMD's compiler was not installed or failed (build/addon.log), so it has no kernels for "
                   "HIP. Install hipcc and run: npx layerstream build --force",
      .no_device = "The HIP runtime finds no device: see rocminfo, whether you may open /dev/kfd, and HIP_VISIBLE_DEVICES if it is set.",
      .remedy = "See whether rocminfo works; restart the system, or install ROCm again.",
      .initialization = initialization,
      .version_text = version_text,
      .unsuitable = unsuitable,
      .refused = refused,
      // HIP's are slower than launches (ggml-org/llama.cpp#11362), and before 5.6 they take no kernels of modules.
      .graphs = false,
  };
  return driver;
}

}  // namespace

std::vector<ListedDevice> list_devices() { return cuda::list_devices(driver()); }

std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason) {
  return cuda::open_device(driver(), options, reason);
}

}  // namespace layerstream::hip
