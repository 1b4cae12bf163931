// Whether a device computes what the CPU does, before a model relies on it: drivers and their compilers have faults, and a wrong
// product shows as text without sense.
#pragma once

#include "device.h"

namespace layerstream {

// Runs an op with these formats, widths and options on small random operands, once on the device and once on the CPU, for one token
// and for many. Ranges, strides and numbers of tokens are not looked at, and of a long row or a large matrix a part is taken. What
// has been right once on a device of that name and driver is right for the process.
//
// Throws Error{"DEVICE_UNAVAILABLE"} naming the op, the device and a value that is wrong.
void check_computes(Device& device, const Op& op);

// The same for what nearly every model needs, in the formats that layerstream writes. Nothing for devices that no driver is behind.
void check_computes(Device& device);

}  // namespace layerstream
