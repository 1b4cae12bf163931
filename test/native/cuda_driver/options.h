// What the emulated driver pretends: LAYERSTREAM_CUDA_DRIVER="memory=67108864,lose=3", read again by each cuInit.
#pragma once

#include <cstdint>

namespace layerstream::cuda_driver {

struct Options {
  uint64_t devices = 1;
  uint64_t memory = uint64_t{1} << 30;  // bytes of the device
  uint64_t granularity = 64 << 10;      // of virtual memory; 0: the device has none
  uint64_t version = 13000;             // of the driver
  uint64_t image = 0;                   // the status of every cuModuleLoadData
  uint64_t function = 0;                // the status of every cuModuleGetFunction
  uint64_t allocation = 0;              // the allocation that fails, counted from 1
  uint64_t lose = 0;                    // the kernel that loses the device, counted from 1
  uint64_t skip = 0;                    // from this kernel on, counted from 1, none does anything
  uint64_t status = 700;                // of a lost device
  uint64_t launch = 0;                  // the launch that is refused, counted from 1
  uint64_t multiprocessors = 2;
  uint64_t capability = 80;             // 10 * major + minor
  uint64_t order = 0;                   // of a block's threads; not 0: random
  uint64_t delay = 0;                   // microseconds that a command takes at most, at random
};

// Throws std::invalid_argument for a name that is not one of the above.
Options read_options();

}  // namespace layerstream::cuda_driver
