// The OpenCL devices of the system, through whatever drivers its loader finds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../backend/device.h"

namespace layerstream::opencl {

// GPUs first, then accelerators, then processors.
std::vector<ListedDevice> list_devices();
// Null where there is none of that index, or it cannot be used; `reason` then says why.
std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason);

}  // namespace layerstream::opencl
