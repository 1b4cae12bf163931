#include <charconv>
#include <optional>
#include <string_view>

#include "../cpu/device.h"
#include "../cuda/device.h"
#include "../hip/device.h"
#include "../opencl/device.h"
#include "../platform/error.h"
#include "device.h"

namespace layerstream {

std::span<const Backend> backends() {
  static const Backend table[] = {
      {"cpu", cpu::list_devices, cpu::open_device},
      // The same kernels behind separate memory: proves that the engine never takes host memory for device memory.
      {"cpu-discrete", cpu::list_discrete_devices, cpu::open_discrete_device},
      // `auto` takes GPUs in this order.
      {"cuda", cuda::list_devices, cuda::open_device},
      {"hip", hip::list_devices, hip::open_device},
      {"opencl", opencl::list_devices, opencl::open_device},
  };
  return table;
}

std::string device_name(const char* backend, uint32_t index) {
  return index == 0 ? backend : std::string(backend) + ":" + std::to_string(index);
}

namespace {

// What follows the colon; nothing where it is no number.
std::optional<uint32_t> index_of(std::string_view digits) {
  uint32_t index = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (status != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return index;
}

}  // namespace

std::unique_ptr<Device> open_device(const std::string& name, const DeviceOptions& options) {
  const size_t colon = name.find(':');
  const std::optional<uint32_t> index = colon == std::string::npos ? 0 : index_of(std::string_view(name).substr(colon + 1));
  DeviceOptions indexed = options;
  indexed.index = index.value_or(0);
  std::string names;
  for (const Backend& backend : backends()) {
    names += std::string(names.empty() ? "" : ", ") + backend.name;
    if (!index || name.compare(0, colon, backend.name) != 0) continue;
    std::string reason;
    std::unique_ptr<Device> device = backend.open(indexed, &reason);
    if (device) return device;
    throw Error("DEVICE_UNAVAILABLE", "The device '" + name + "' cannot be used here: " + reason);
  }
  throw Error("DEVICE_UNAVAILABLE", "There is no device '" + name + "'. Known: " + names + ".");
}

}  // namespace layerstream
