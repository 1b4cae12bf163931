#include "find.h"

#include "../platform/error.h"
#include "kernel_images.h"

namespace layerstream::cuda {

namespace {

// Turing: what the oldest kernels are compiled for.
constexpr int kLeastCapability = 75;
constexpr int kVersionsOfMajor = 1000;

FoundDevice none(std::string reason) {
  FoundDevice none;
  none.listed.info.name = device_name("cuda", 0);
  none.listed.reason = std::move(reason);
  return none;
}

std::string initialize(const Api& api) {
  const CUresult status = api.cuInit(0);
  if (status == CUDA_SUCCESS) return {};
  const std::string name = "The NVIDIA driver cannot be used (cuInit: " + status_name(api, status) + "). ";
  if (status == CUDA_ERROR_NO_DEVICE) return name + "It finds no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES if it is set.";
  if (status == CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) return name + "Its parts are of different versions: restart the system, or install it again.";
  if (status == CUDA_ERROR_STUB_LIBRARY) return name + "What was loaded is a toolkit's stub: take it off the library path.";
  return name + "See whether nvidia-smi works; restart the system, or install the driver again.";
}

void examine(const Api& api, int ordinal, int driver, FoundDevice* device) {
  const auto check = [&](CUresult status, const char* call) {
    if (status != CUDA_SUCCESS) throw Error("DEVICE_FAILED", std::string("CUDA: ") + call + " failed with " + status_name(api, status) + '.');
  };
  check(api.cuDeviceGet(&device->id, ordinal), "cuDeviceGet");
  char name[256] = {};
  check(api.cuDeviceGetName(name, sizeof name - 1, device->id), "cuDeviceGetName");
  int major = 0, minor = 0;
  check(api.cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device->id), "cuDeviceGetAttribute");
  check(api.cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device->id), "cuDeviceGetAttribute");
  size_t bytes = 0;
  check(api.cuDeviceTotalMem(&bytes, device->id), "cuDeviceTotalMem");
  DeviceInfo& info = device->listed.info;
  info.kernels = name;
  info.kind = DeviceKind::kGpu;
  info.driver = "CUDA " + version_text(driver);
  info.memory_bytes = bytes;
  if (10 * major + minor < kLeastCapability) {
    device->listed.reason = info.kernels + " has compute capability " + std::to_string(major) + '.' + std::to_string(minor) +
                            ", and 7.5 is needed. Use --device opencl.";
  } else if (driver / kVersionsOfMajor < kKernelVersion / kVersionsOfMajor) {
    device->listed.reason = unsuitable_driver(info.kernels, driver, {});
  }
}

}  // namespace

std::string unsuitable_driver(const std::string& device, int driver_version, const std::string& detail) {
  const std::string needed = version_text(kKernelVersion);
  return "The driver of " + device + " supports CUDA " + version_text(driver_version) + ", and the kernels are for CUDA " + needed + detail +
         ". Install a driver for CUDA " + needed + " or newer, or use --device opencl.";
}

std::vector<FoundDevice> find_devices() {
  const Api* const api = find_api();
  if (api == nullptr) return {none(api_error())};
  if (kKernelImages->source == nullptr) {
    return {none("This layerstream was built where NVIDIA's compiler was not installed, so it has no kernels for CUDA. Install nvcc (the "
                 "CUDA toolkit) and run: npx layerstream build --force")};
  }
  const std::string failure = initialize(*api);
  if (!failure.empty()) return {none(failure)};
  int driver = 0, count = 0;
  if (api->cuDriverGetVersion(&driver) != CUDA_SUCCESS || api->cuDeviceGetCount(&count) != CUDA_SUCCESS || count <= 0) {
    return {none("The NVIDIA driver finds no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES if it is set.")};
  }
  std::vector<FoundDevice> found(static_cast<size_t>(count));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    FoundDevice& device = found[static_cast<size_t>(ordinal)];
    device.listed.info.name = device_name("cuda", static_cast<uint32_t>(ordinal));
    try {
      examine(*api, ordinal, driver, &device);
    } catch (const Error& error) {
      device.listed.reason = std::string(error.what()) + " See whether nvidia-smi works; restart the system, or install the driver again.";
    }
  }
  return found;
}

}  // namespace layerstream::cuda
