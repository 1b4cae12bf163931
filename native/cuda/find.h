// Which devices a driver has.
#pragma once

#include <vector>

#include "driver.h"

namespace layerstream::cuda {

struct FoundDevice {
  CUdevice id = 0;
  ListedDevice listed;
};

// At least one, which has a reason where there is none that can be used. Opens no context.
std::vector<FoundDevice> find_devices(const Driver& driver);

}  // namespace layerstream::cuda
