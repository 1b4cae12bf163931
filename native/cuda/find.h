// Which CUDA devices there are.
#pragma once

#include <vector>

#include "../backend/device.h"
#include "api.h"

namespace layerstream::cuda {

struct FoundDevice {
  CUdevice id = 0;
  ListedDevice listed;
};

// At least one, which has a reason where there is none that can be used. Opens no context.
std::vector<FoundDevice> find_devices();

// A driver that does not take the kernels of this build.
std::string unsuitable_driver(const std::string& device, int driver_version, const std::string& detail);

}  // namespace layerstream::cuda
