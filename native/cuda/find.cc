#include "find.h"

#include "../platform/error.h"

namespace layerstream::cuda {

namespace {

FoundDevice none(const Driver& driver, std::string reason) {
  FoundDevice none;
  none.listed.info.name = device_name(driver.backend, 0);
  none.listed.reason = std::move(reason);
  return none;
}

// Why the driver cannot be used; empty where it can.
std::string initialize(const Driver& driver, const Api& api) {
  const CUresult status = api.cuInit(0);
  if (status == CUDA_SUCCESS) return {};
  if (status == CUDA_ERROR_NO_DEVICE) return driver.no_device;
  const std::string known = driver.initialization(status);
  return std::string(driver.called) + " cannot be used (" + driver.call_name("cuInit") + ": " + status_name(api, status) + "). " +
         (known.empty() ? driver.remedy : known);
}

void examine(const Driver& driver, const Api& api, int ordinal, int version, FoundDevice* device) {
  const auto check = [&](CUresult status, const char* function) { check_call(driver, api, status, function); };
  check(api.cuDeviceGet(&device->id, ordinal), "cuDeviceGet");
  char name[256] = {};
  check(api.cuDeviceGetName(name, sizeof name - 1, device->id), "cuDeviceGetName");
  size_t bytes = 0;
  check(api.cuDeviceTotalMem(&bytes, device->id), "cuDeviceTotalMem");
  DeviceInfo& info = device->listed.info;
  info.kernels = name;
  info.kind = DeviceKind::kGpu;
  info.driver = std::string(driver.name) + ' ' + driver.version_text(version);
  info.memory_bytes = bytes;
  device->listed.reason = driver.unsuitable(api, device->id, info.kernels, version);
}

}  // namespace

void check_call(const Driver& driver, const Api& api, CUresult status, const char* function) {
  if (status == CUDA_SUCCESS) return;
  throw Error("DEVICE_FAILED",
              std::string(driver.name) + ": " + driver.call_name(function) + " failed with " + status_name(api, status) + '.');
}

std::vector<FoundDevice> find_devices(const Driver& driver) {
  const Api* const api = driver.find();
  if (api == nullptr) return {none(driver, driver.error())};
  if (driver.images->source == nullptr) return {none(driver, driver.no_images)};
  const std::string failure = initialize(driver, *api);
  if (!failure.empty()) return {none(driver, failure)};
  int version = 0, count = 0;
  if (api->cuDriverGetVersion(&version) != CUDA_SUCCESS || api->cuDeviceGetCount(&count) != CUDA_SUCCESS || count <= 0) {
    return {none(driver, driver.no_device)};
  }
  std::vector<FoundDevice> found(static_cast<size_t>(count));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    FoundDevice& device = found[static_cast<size_t>(ordinal)];
    device.listed.info.name = device_name(driver.backend, static_cast<uint32_t>(ordinal));
    try {
      examine(driver, *api, ordinal, version, &device);
    } catch (const Error& error) {
      device.listed.reason = std::string(error.what()) + ' ' + driver.remedy;
    }
  }
  return found;
}

}  // namespace layerstream::cuda
