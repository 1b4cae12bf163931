#include "../cpu/device.h"
#include "../opencl/device.h"
#include "../platform/error.h"
#include "device.h"

namespace layerstream {

std::span<const Backend> backends() {
  static const Backend table[] = {
      {"cpu", cpu::open_device},
      // The same kernels behind separate memory: proves that the engine never takes host memory for device memory.
      {"cpu-discrete", cpu::open_discrete_device},
      {"opencl", opencl::open_device},
  };
  return table;
}

std::unique_ptr<Device> open_device(const std::string& name, const DeviceOptions& options) {
  for (const Backend& backend : backends()) {
    if (name != backend.name) continue;
    std::string reason;
    std::unique_ptr<Device> device = backend.open(options, &reason);
    if (device) return device;
    throw Error("DEVICE_UNAVAILABLE", "The device '" + name + "' cannot be used here: " + reason);
  }
  std::string names;
  for (const Backend& backend : backends()) names += std::string(names.empty() ? "" : ", ") + backend.name;
  throw Error("DEVICE_UNAVAILABLE", "There is no device '" + name + "'. Known: " + names + ".");
}

}  // namespace layerstream
