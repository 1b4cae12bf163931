// What a device can do, measured through its interface: what plans are made from.
#pragma once

#include <cstdint>

#include "device.h"

namespace layerstream {

// Bytes a second. Each takes about `seconds`, and as long as it takes to allocate some hundred MiB, or what there is room for.

// From pinned memory of the host to the device, alone on its stream; 0 for unified devices, where nothing is copied.
double measure_copy_rate(Device& device, double seconds);

// Of the memory that weights are read from. Unified devices: `info().threads` threads that read; others: copies from the
// device's memory to the same, bytes read and bytes written.
double measure_memory_rate(Device& device, double seconds);

// That `threads` threads read together from `bytes` of the host's memory.
double measure_host_memory_rate(uint64_t bytes, uint32_t threads, double seconds);

}  // namespace layerstream
