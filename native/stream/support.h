// Whether a device can run a model, known before anything is allocated or read.
#pragma once

#include "../backend/device.h"
#include "model.h"

namespace layerstream {

// Throws Error{"DEVICE_UNAVAILABLE"} naming the first op, its format and the device if there is no kernel for it.
void check_support(const RuntimeDescription& description, const Device& device);

// Has a device that is behind a driver compute each kind of op of the model on small random operands (backend/self_check.h).
// Throws Error{"DEVICE_UNAVAILABLE"} where it does so wrongly.
void check_results(const RuntimeDescription& description, Device& device);

}  // namespace layerstream
