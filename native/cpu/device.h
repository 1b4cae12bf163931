// The CPU as a device: streams are worker queues, events are counters, pinned memory is aligned memory.
#pragma once

#include <memory>
#include <vector>

#include "../backend/device.h"

namespace layerstream::cpu {

std::vector<ListedDevice> list_devices();
std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason);
// Behaves like a device with memory of its own (no aliasing, uploads copy).
std::vector<ListedDevice> list_discrete_devices();
std::unique_ptr<Device> open_discrete_device(const DeviceOptions& options, std::string* reason);

}  // namespace layerstream::cpu
