// The best OpenCL device of the system, through whatever driver its loader finds.
#pragma once

#include <memory>
#include <string>

#include "../backend/device.h"

namespace layerstream::opencl {

// Null where there is none; `reason` then says why.
std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason);

}  // namespace layerstream::opencl
