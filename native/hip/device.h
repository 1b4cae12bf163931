// AMD's GPUs, through HIP: the device and the kernels of ../cuda, with another driver (driver.cc).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend/device.h"

namespace layerstream::hip {

// In the runtime's order, which HIP_VISIBLE_DEVICES changes.
std::vector<ListedDevice> list_devices();
// Null where there is none of that index, or it cannot be used; `reason` then says why.
std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason);

}  // namespace layerstream::hip
