// The best OpenCL device of the system, through whatever driver its loader finds.
#pragma once

#include <memory>
#include <string>

#include "../backend/device.h"

namespace layerstream::opencl {

// Null where there is none; unavailable() says why.
std::unique_ptr<Device> open_device(const DeviceOptions& options);
// Why there is no device, in a few words; empty if there is one.
std::string unavailable();

}  // namespace layerstream::opencl
