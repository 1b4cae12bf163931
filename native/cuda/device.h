// The CUDA devices of the system, through the driver that it has.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend/device.h"

namespace layerstream::cuda {

// In the driver's order, which CUDA_VISIBLE_DEVICES changes.
std::vector<ListedDevice> list_devices();
// Null where there is none of that index, or it cannot be used; `reason` then says why.
std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason);

}  // namespace layerstream::cuda
